import dataclasses
import errno
import json
import os
import pathlib
import shlex
import shutil
import sys

import numpy as np
import pytest
import soundfile

from lca_keras import fit
from lca_keras.base import files
from lca_keras.base.sections import FeatureConfig
from lca_keras.data import catalogue, update
from lca_keras.data.examples import parse_example
from lca_keras.data.extraction import Extractor
from lca_keras.data.store import FeatureStore, Record
from lca_keras.data.update import WritableStore
from lca_keras.features.front_end import front_end_of
from pipelines import extract


def contents(folder):
    return {
        path.relative_to(folder): path.read_bytes()
        for path in pathlib.Path(folder).rglob("*")
        if path.is_file()
    }


@pytest.fixture
def corpus(tiny_corpus, tmp_path, monkeypatch):
    """A corpus with two songs that cannot be used, in the current folder."""
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "my 'songs' 🎵"
    ignored = shutil.ignore_patterns("stems", "*.csv", "*.json")
    shutil.copytree(tiny_corpus, root, ignore=ignored)
    (root / "Ada Quill" / "Album 01" / "zero.mp3").write_bytes(b"")
    soundfile.write(
        root / "Ada Quill" / "Album 02" / "silence.wav", np.zeros(99999), 16000
    )
    return root


@pytest.fixture
def counted(monkeypatch):
    """Paths that were extracted in this process."""
    seen = []
    original = Extractor.extract

    def spy(self, song):
        features = original(self, song)
        seen.append(song.path)
        return features

    monkeypatch.setattr(Extractor, "extract", spy)
    return seen


MELODIC = FeatureConfig(melody="pyin")


def run(corpus, out, *options):
    return extract.main(["--data", str(corpus), "--out", str(out), *options])


def test_gives_the_store_that_fit_would_make(corpus, monkeypatch, capsys):
    monkeypatch.setattr(update, "SONGS_PER_SHARD", 8)
    WritableStore("by fit").update(catalogue.load(corpus))
    assert run(corpus, "by beam") == 0
    assert contents("by beam") == contents("by fit")
    assert len(list(pathlib.Path("by beam").glob("songs-*"))) == 4
    out = capsys.readouterr().out
    assert "20 songs: 18 done, 0 reused, 2 failed" in out
    assert "zero.mp3: empty file (0 bytes)" in out
    rows = files.read_csv("by beam-report.csv")
    assert [row["status"] for row in rows].count("done") == 18
    failed = {r["song"]: r["reason"] for r in rows if r["status"] == "failed"}
    assert failed == {
        "zero": "empty file (0 bytes)",
        "silence": "silent from beginning to end",
    }


def test_worker_processes_give_the_same_store(corpus, tmp_path, monkeypatch):
    """Wherever Python is installed: Beam starts it by a shell."""
    python = tmp_path / "my 'python'" / "python"
    python.parent.mkdir()
    python.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n')
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    WritableStore("alone").update(catalogue.load(corpus))
    assert run(corpus, "together", "--workers", "2") == 0
    assert contents("together") == contents("alone")
    assert not list(pathlib.Path(".").glob("*.log"))


def test_workers_can_write_the_shards(corpus, monkeypatch):
    """As on a cluster, where no process sees all songs pass."""
    monkeypatch.setattr(update, "SONGS_PER_SHARD", 5)
    songs = catalogue.load(corpus)
    WritableStore("alone").update(songs)
    WritableStore("grown").update(songs[:7])  # Some of it is there already.
    wrote = []
    commit, write_shard = WritableStore.commit, WritableStore.write_shard

    def spy(self, *args):
        wrote.append(write_shard(self, *args))
        return wrote[-1]

    def commit_spied_on(self, plan):
        with monkeypatch.context() as patch:
            patch.setattr(WritableStore, "write_shard", spy)
            commit(self, plan)

    monkeypatch.setattr(WritableStore, "commit", commit_spied_on)
    for name in ("new", "grown"):
        assert run(corpus, name, "--runner=FnApiRunner") == 0
        assert contents(name) == contents("alone")
    assert wrote == [False] * 8  # Nothing was left to write.


def test_second_run_does_no_audio_work(corpus, counted, capsys):
    run(corpus, "s")
    before = contents("s")
    counted.clear()
    assert run(corpus, "s", "--strict") == 1  # Unusable songs, this time an error.
    assert counted == []
    assert contents("s") == before
    assert "0 done, 18 reused, 2 failed" in capsys.readouterr().out


def test_new_and_changed_songs_are_computed(corpus, counted):
    run(corpus, "s")
    counted.clear()
    changed = corpus / "Ada Quill" / "Album 01" / "Song 01.flac"
    added = corpus / "Ada Quill" / "Album 01" / "zero.mp3"
    removed = corpus / "Ada Quill" / "Album 03" / "Song 01.flac"
    soundfile.write(changed, 0.1 * np.sin(np.arange(90000)), 16000)
    shutil.copy(removed, added)
    removed.unlink()
    assert run(corpus, "s") == 0
    assert sorted(counted) == sorted([changed, added])
    WritableStore("anew").update(catalogue.load(corpus))
    assert contents("s") == contents("anew")


def test_full_disk_keeps_what_is_done(corpus, counted, monkeypatch, capsys):
    run(corpus, "whole")
    counted.clear()
    write = np.savez

    def full(path, **arrays):
        if len(counted) == 7:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(path, **arrays)

    with monkeypatch.context() as patch:
        patch.setattr(np, "savez", full)
        assert run(corpus, "s") == 1
    error = capsys.readouterr().err
    assert "extraction stopped: " in error
    assert "No space left on device" in error
    assert "Finished songs are kept" in error
    assert run(corpus, "s") == 0
    # One song was computed twice: the one that could not be written.
    assert len(counted) == 18 + 1
    assert contents("s") == contents("whole")


def test_a_full_disk_that_takes_no_report_either(corpus, monkeypatch, capsys):
    def full(path, **arrays):
        log = pathlib.Path("s/parts/workers.log")
        log.unlink()
        log.mkdir()  # What is written there now is an `OSError` too.
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(np, "savez", full)
    assert run(corpus, "s") == 1
    error = capsys.readouterr().err
    assert "extraction stopped: " in error
    assert "No space left on device" in error
    assert "Finished songs are kept" in error


def test_stop_while_shards_are_written(corpus, counted, monkeypatch):
    run(corpus, "whole")
    counted.clear()
    for step in ("write_shard", "commit"):
        with monkeypatch.context() as patch:
            patch.setattr(WritableStore, step, lambda *args: 1 / 0)
            with pytest.raises((ZeroDivisionError, extract.UserError)):
                extract.main(["--data", str(corpus), "--out", "s", "--debug"])
    assert run(corpus, "s") == 0
    assert len(counted) == 18
    assert contents("s") == contents("whole")


@pytest.mark.slow
def test_melody_is_stored_and_trained_on(corpus, tiny_config, capsys):
    assert run(corpus, "s", "--melody", "pyin") == 0
    (song,) = [s for s in catalogue.load(corpus) if s.label.endswith("03 / Song 02")][
        :1
    ]
    expected = Extractor(MELODIC).extract(song)
    import tensorflow as tf

    stored = {}
    for path in FeatureStore.open("s").shard_paths():
        for serialized in tf.data.TFRecordDataset(path):
            example = parse_example(serialized, front_end_of(MELODIC).streams)
            stored[example["key"].numpy().decode()] = example
    np.testing.assert_array_equal(stored[song.key]["melody"], expected.arrays["melody"])
    mel = stored[song.key]["mel_spectrogram"]
    np.testing.assert_array_equal(mel, expected.arrays["mel_spectrogram"])
    shutil.rmtree(corpus)  # A store is enough to train from.
    tiny_config.replace(
        train={"epochs": 1, "method": "none"},
        model={"name": "crnnm"},
        features={"melody": "pyin"},
    ).save("c.yaml")
    assert fit.main(["--store", "s", "--config", "c.yaml", "--name", "x"]) == 0
    assert "18 songs ready, 2 skipped (features: s)" in capsys.readouterr().out


def test_a_store_of_other_features_is_refused(corpus, tiny_config, capsys):
    run(corpus, "s")
    before = contents("s")
    assert run(corpus, "s", "--melody", "pyin") == 1
    error = capsys.readouterr().err
    assert "melody is 'none' there, 'pyin' was asked for" in error
    assert contents("s") == before
    tiny_config.replace(features={"mel_bins": 64}).save("c.yaml")
    for options in (["--melody", "pyin"], ["--config", "c.yaml"]):
        assert fit.main(["--store", "s", "--name", "x", *options]) == 1
        assert "was asked for" in capsys.readouterr().err
    assert fit.main(["--store", str(corpus), "--name", "x"]) == 1
    assert "is not a feature store" in capsys.readouterr().err


@pytest.mark.slow
def test_corrupt_shard_is_named_and_the_rest_is_used(
    corpus, tiny_config, monkeypatch, capsys
):
    monkeypatch.setattr(update, "SONGS_PER_SHARD", 5)
    run(corpus, "s")
    whole = contents("s")
    victim = sorted(pathlib.Path("s").glob("songs-*"))[1]
    content = victim.read_bytes()
    victim.write_bytes(content[:-500] + bytes(400) + content[-100:])
    tiny_config.replace(train={"epochs": 1}).save("c.yaml")
    songs = catalogue.load(corpus)
    index = json.loads(pathlib.Path("s/index.json").read_text())
    lost = len(index["shards"][victim.name]["records"])
    parts = ("train", "validation", "test")
    rows = [[s.artist, s.album, s.song, parts[int(s.album[-1]) - 1]] for s in songs]
    files.write_csv("split.csv", ["artist", "album", "song", "part"], rows)
    options = ["--config", "c.yaml", "--split-file", "split.csv", "--name", "x"]
    assert fit.main(["--store", "s", *options]) == 0
    out = capsys.readouterr().out
    assert f"{victim.name} is damaged" in out
    assert f"{lost} songs are left out" in out
    assert f"{18 - lost} songs ready" in out
    victim.unlink()
    assert run(corpus, "s") == 0
    assert contents("s") == whole


def test_vocals_that_must_be_separated_need_their_separator(corpus, capsys):
    options = ["--source", "vocals", "--separator", "nowhere"]
    assert run(corpus, "s", *options) == 1
    assert "separator 'nowhere': no such folder" in capsys.readouterr().err
    assert run(corpus, "s", "--separator", "umxl") == 1
    assert "--separator is for --source vocals" in capsys.readouterr().err
    assert run(corpus, "s", "--keep-vocals", "v") == 1
    assert "--keep-vocals is for --source vocals" in capsys.readouterr().err
    assert not pathlib.Path("s").exists()


def test_manifest_with_vocals(tiny_corpus, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    manifest = tiny_corpus / "manifest.csv"
    assert run(manifest, "s", "--source", "vocals") == 0
    record = next(iter(FeatureStore.open("s").records.values()))
    assert record.as_song in catalogue.load(manifest)
    assert record.as_song.vocals_path.name == "vocals.flac"
    assert record.as_song.accompaniment_path.name == "accompaniment.flac"


@pytest.mark.slow
def test_stems_reach_the_store(tiny_corpus, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    manifest = tiny_corpus / "manifest.csv"
    assert run(manifest, "s", "--source", "stems", "--melody", "pyin") == 0
    import tensorflow as tf

    store = FeatureStore.open("s")
    extractor = Extractor(store.config)
    songs = {song.key: song for song in catalogue.load(manifest)[::6]}
    names = ("mel_spectrogram", "melody", "vocals", "accompaniment")
    streams = tuple(map(store.front_end.stream, names))
    found = 0
    for path in store.shard_paths():
        for serialized in tf.data.TFRecordDataset(path):
            example = parse_example(serialized, streams)
            song = songs.get(example["key"].numpy().decode())
            if song is not None:
                found += 1
                for name, array in extractor.extract(song).arrays.items():
                    np.testing.assert_array_equal(example[name], array)
    assert found == len(songs) == 3


def test_options_are_checked_first(corpus, capsys):
    assert run(corpus, "s", "--workers", "0") == 1
    assert "--workers must be at least 1" in capsys.readouterr().err
    assert run(corpus, "s", "--workers", "2", "--runner", "FlinkRunner") == 1
    assert "FlinkRunner has options of its own" in capsys.readouterr().err
    pathlib.Path("thesis").mkdir()
    pathlib.Path("thesis/thesis.tex").write_text("x")
    assert run(corpus, "thesis") == 1
    assert "not a feature store" in capsys.readouterr().err
    pathlib.Path("empty").mkdir()
    assert run("empty", "s") == 1
    assert "no songs found" in capsys.readouterr().err


def test_a_corpus_without_any_usable_song(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for song in ("a", "b"):
        path = tmp_path / "c" / "artist" / "album" / f"{song}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    assert run("c", "s") == 1
    assert "none of 2 songs can be used" in capsys.readouterr().err


def test_songs_travel_through_the_plan(tmp_path):
    from pipelines import extraction

    song = catalogue.Song("Ä\udcff", 'b "c"', "d\n", pathlib.Path("/e/\udcfe.wav"))
    stems = {"vocals_path": pathlib.Path("/v"), "accompaniment_path": None}
    voiced = dataclasses.replace(song, **stems)
    played = dataclasses.replace(
        song, accompaniment_path=pathlib.Path("/a"), accompaniment_artist="Ö"
    )
    record = Record("a", "b", "c", "/p", 3, 0.1, "h", (1, 2))
    plan = update.Plan([song], {"k": record}, {}, {"k"}, [song, voiced, played])
    extraction.write_plan(tmp_path / "plan", plan)
    *songs, there = extraction.read_plan(tmp_path / "plan")
    # These paths do not count when songs are compared.
    assert list(map(dataclasses.astuple, songs)) == [
        dataclasses.astuple(one) for one in (song, voiced, played)
    ]
    assert there.value == ("k", record, True)


def test_nobodys_files_are_overwritten(tiny_corpus, tmp_path, monkeypatch, capsys):
    """A report beside the store must not take a manifest's place."""
    monkeypatch.chdir(tmp_path)
    pathlib.Path("songs-report.csv").write_text("path,artist,album,song\n")
    assert run(tiny_corpus, "songs") == 1
    assert "is no report of an extraction" in capsys.readouterr().err
    assert pathlib.Path("songs-report.csv").read_text().startswith("path,artist")
    assert not pathlib.Path("songs").exists()


def test_misspelt_options_are_not_left_to_beam(corpus, capsys):
    assert run(corpus, "s", "--sourc", "vocals") == 1
    assert "unknown options: --sourc vocals" in capsys.readouterr().err
    assert not pathlib.Path("s").exists()
    assert run(corpus, "s", "--flink_master=x:1") == 0  # Beam's own.


def test_files_out_of_reach_are_tried_again(corpus, tmp_path, capsys):
    rows = [
        [song.path.relative_to(tmp_path), song.artist, song.album, song.song]
        for song in catalogue.load(corpus)
    ]
    files.write_csv("list.csv", ["path", "artist", "album", "song"], rows)
    victim = corpus / "Ada Quill" / "Album 01" / "Song 01.flac"
    elsewhere = tmp_path / "elsewhere.flac"
    victim.rename(elsewhere)
    run("list.csv", "s")
    assert "Song 01.flac: cannot be read: No such file" in capsys.readouterr().out
    elsewhere.rename(victim)
    assert run("list.csv", "s") == 0
    assert "1 done, 17 reused, 2 failed" in capsys.readouterr().out
    # All of it: the disk is not mounted. The features stay.
    before = contents("s")
    corpus.rename(tmp_path / "away")
    assert run("list.csv", "s") == 1
    assert "none of 20 songs can be used any more" in capsys.readouterr().err
    assert {k: v for k, v in contents("s").items() if k in before} == before


def test_a_shard_cut_at_a_record_is_damaged_too(corpus, tiny_config, capsys):
    run(corpus, "s")
    (shard,) = pathlib.Path("s").glob("songs-*")
    shard.write_bytes(b"")
    tiny_config.save("c.yaml")
    assert fit.main(["--store", "s", "--config", "c.yaml", "--name", "x"]) == 1
    error = capsys.readouterr().err
    assert "none of" in error
    assert f"{shard.name} is damaged" in error


def test_names_that_are_not_utf8(corpus, capsys):
    odd = os.fsencode(corpus / "Ada Quill" / "Album 01") + b"/caf\xe9.flac"
    shutil.copy(corpus / "Ada Quill" / "Album 02" / "Song 01.flac", odd)
    assert run(corpus, "s") == 0
    assert run(corpus, "s") == 0
    assert "19 reused" in capsys.readouterr().out
    (song,) = [r for r in FeatureStore.open("s").records.values() if "caf" in r.song]
    assert os.fsencode(song.path) == odd


def test_disk_full_while_shards_are_written(corpus, counted, monkeypatch, capsys):
    import tensorflow as tf

    class Full(tf.io.TFRecordWriter):
        def write(self, record):
            raise tf.errors.ResourceExhaustedError(
                None, None, "No space left on device"
            )

    with monkeypatch.context() as patch:
        patch.setattr(tf.io, "TFRecordWriter", Full)
        assert run(corpus, "s") == 1
    assert "No space left on device" in capsys.readouterr().err
    assert run(corpus, "s") == 0
    assert len(counted) == 18
