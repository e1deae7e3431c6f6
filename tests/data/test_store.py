import dataclasses
import os
import shutil

import numpy as np
import pytest
import soundfile
import tensorflow as tf

from lca_keras.base.sections import FeatureConfig
from lca_keras.data import catalogue, update
from lca_keras.data.examples import parse_example
from lca_keras.data.extraction import Extractor, SongFeatures
from lca_keras.data.store import FeatureStore, StoreError
from lca_keras.data.update import WritableStore
from lca_keras.features.spectrogram import mel_spectrogram


@pytest.fixture
def songs(tiny_corpus, tmp_path):
    """Six songs, copied so that a test may change them."""
    copy = tmp_path / "songs"
    found = catalogue.load(tiny_corpus)[:6]
    for song in found:
        target = copy / song.artist / song.album / song.path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(song.path, target)
    return catalogue.load(copy)


@pytest.fixture
def counted(monkeypatch):
    """Paths that were extracted."""
    seen = []
    original = Extractor.extract

    def spy(self, song):
        seen.append(song.path)
        return original(self, song)

    monkeypatch.setattr(Extractor, "extract", spy)
    return seen


def read_all(feature_store):
    result = {}
    for path in feature_store.shard_paths():
        for serialized in tf.data.TFRecordDataset(path):
            example = parse_example(serialized, feature_store.front_end.streams)
            mel = example["mel_spectrogram"].numpy()[..., 0]
            result[example["key"].numpy().decode()] = mel
    return result


def contents(folder):
    return {
        path.relative_to(folder): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_holds_the_features_in_float16(songs, tmp_path):
    features = WritableStore(tmp_path / "store")
    report = features.update(songs)
    assert (report.computed, report.reused, report.failed) == (6, 0, {})
    stored = read_all(FeatureStore(tmp_path / "store"))
    assert set(stored) == {song.key for song in songs}
    for song in songs:
        samples, _ = soundfile.read(song.path, dtype="float32")
        expected = mel_spectrogram(samples, FeatureConfig())
        assert stored[song.key].dtype == np.float16
        np.testing.assert_allclose(stored[song.key], expected, atol=0.04)
        record = features.records[song.key]
        assert record.frames == expected.shape[1]
        assert record.duration == pytest.approx(7.0)


def test_second_run_does_no_audio_work(songs, tmp_path, counted):
    WritableStore(tmp_path / "store").update(songs)
    before = contents(tmp_path / "store")
    counted.clear()
    report = WritableStore(tmp_path / "store").update(songs)
    assert counted == []
    assert (report.computed, report.reused) == (0, 6)
    assert contents(tmp_path / "store") == before


def test_only_changed_and_new_songs_are_computed(songs, tmp_path, counted):
    WritableStore(tmp_path / "store").update(songs[:4])
    counted.clear()
    soundfile.write(songs[1].path, 0.1 * np.sin(np.arange(50000)), 16000)
    feature_store = WritableStore(tmp_path / "store")
    feature_store.update([*songs[1:4], songs[5]])
    assert counted == [songs[1].path, songs[5].path]
    stored = read_all(feature_store)
    assert set(stored) == {s.key for s in [*songs[1:4], songs[5]]}
    assert stored[songs[1].key].shape == (128, 98)


def test_interrupted_equals_uninterrupted(songs, tmp_path, counted, monkeypatch):
    WritableStore(tmp_path / "whole").update(songs)
    counted.clear()

    def stop(done, total):
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        WritableStore(tmp_path / "cut").update(songs, stop)
    assert FeatureStore(tmp_path / "cut").records == {}
    # Again while merging: the shard is there, the index does not name it yet.
    with monkeypatch.context() as patch:
        patch.setattr(WritableStore, "_write_index", lambda *args: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            WritableStore(tmp_path / "cut").update(songs)
    assert list((tmp_path / "cut").glob("songs-*"))
    WritableStore(tmp_path / "cut").update(songs)
    assert counted == [song.path for song in songs]
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


def test_many_shards(songs, tmp_path, monkeypatch, counted):
    monkeypatch.setattr(update, "SONGS_PER_SHARD", 2)
    feature_store = WritableStore(tmp_path / "store")
    feature_store.update(songs[:3])
    assert len(feature_store.shard_paths()) == 2
    feature_store.update(songs)  # Four shards now: records move.
    assert len(feature_store.shard_paths()) == 4
    assert len(counted) == 6
    assert set(read_all(feature_store)) == {song.key for song in songs}


def test_swapped_files_are_seen_and_copies_not_computed(songs, tmp_path, counted):
    first, second = songs[0].path, songs[1].path
    samples, rate = soundfile.read(first)
    for path, sign in ((first, 1), (second, -1)):
        # Equal in size and time, and not in sound.
        soundfile.write(path, sign * samples[::sign], rate, format="WAV")
        os.utime(path, ns=(10**18, 10**18))
    assert first.stat().st_size == second.stat().st_size
    store = WritableStore(tmp_path / "store")
    store.update(songs)
    before = read_all(store)
    os.rename(first, tmp_path / "moved")
    os.rename(second, first)
    os.rename(tmp_path / "moved", second)
    counted.clear()
    report = WritableStore(tmp_path / "store").update(songs)
    after = read_all(FeatureStore(tmp_path / "store"))
    one, other = songs[0].key, songs[1].key
    np.testing.assert_array_equal(after[one], before[other])
    np.testing.assert_array_equal(after[other], before[one])
    # Both are known by their content.
    assert (report.computed, report.reused, counted) == (0, 6, [])
    # A copy in its place, as from a backup: another file, later, of the same content.
    shutil.copy(songs[2].path, tmp_path / "copy")
    os.replace(tmp_path / "copy", songs[2].path)
    files_before = contents(tmp_path / "store")
    report = WritableStore(tmp_path / "store").update(songs)
    assert (report.computed, report.reused, counted) == (0, 6, [])
    files_after = contents(tmp_path / "store")
    changed = {p.name for p in files_after if files_after[p] != files_before.get(p)}
    assert changed == {"index.json"}


@pytest.mark.parametrize("melody", ["none", "pyin"])
def test_stores_share_features_by_content(songs, tmp_path, counted, melody):
    config = FeatureConfig(melody=melody, source="stems", separator="umxl")
    songs = [
        dataclasses.replace(song, accompaniment_path=other.path)
        for song, other in zip(songs[:3], songs[3:], strict=True)
    ]
    stems = [dataclasses.replace(s, accompaniment_path=s.path) for s in songs]

    def extract(self, song):
        """Everything that features may have, different for each song."""
        counted.append(song.path)
        rng = np.random.default_rng(song.path.stat().st_size)
        mel = rng.normal(size=(128, 20, 1)).astype("float16")
        arrays = {"vocals": mel - 1, "accompaniment": mel + 1, "mel_spectrogram": mel}
        if melody != "none":
            arrays["melody"] = (mel > 1).astype("uint8")
        return SongFeatures(arrays, 0.64, "abc", ("a note",), (0.032, 0.64))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Extractor, "extract", extract)
        WritableStore(tmp_path / "first", config).update(songs)
        assert len(counted) == 3
        second = WritableStore(tmp_path / "second", config)
        renamed = [dataclasses.replace(song, artist="Someone") for song in songs]
        (tmp_path / "third").mkdir()
        (tmp_path / "third" / "index.json").write_text("{")
        others = [tmp_path / "third", tmp_path / "first", tmp_path / "nowhere"]
        report = second.update(renamed, others=others)
        assert (report.computed, report.reused) == (0, 3)
        assert len(counted) == 3
        first = FeatureStore(tmp_path / "first", config)
        for song, other in zip(songs, renamed, strict=True):
            mine, theirs = second.read(other.key), first.read(song.key)
            assert set(mine.arrays) == set(theirs.arrays)
            for name, array in theirs.arrays.items():
                np.testing.assert_array_equal(mine.arrays[name], array)
                assert mine.arrays[name].dtype == array.dtype
            assert second.records[other.key].artist == "Someone"
            rest = dict(artist="", digests=(), state=())
            assert dataclasses.replace(
                second.records[other.key], **rest
            ) == dataclasses.replace(first.records[song.key], **rest)
        # The song is the same, its stems are not.
        report = WritableStore(tmp_path / "fourth", config).update(stems, others=others)
        assert (report.computed, report.reused) == (3, 0)
        # A damaged shard is no reason to stop.
        for shard in (tmp_path / "first").glob("songs-*"):
            shard.write_bytes(shard.read_bytes()[:100])
        report = WritableStore(tmp_path / "fifth", config).update(songs, others=others)
        assert (report.computed, report.reused) == (3, 0)


def test_failures_are_remembered_until_the_file_changes(songs, tmp_path, counted):
    songs[2].path.write_bytes(b"")
    report = WritableStore(tmp_path / "store").update(songs)
    assert report.failed == {songs[2].key: "empty file (0 bytes)"}
    counted.clear()
    again = WritableStore(tmp_path / "store").update(songs)
    assert again.failed == report.failed
    assert counted == []
    shutil.copy(songs[1].path, songs[2].path)
    assert WritableStore(tmp_path / "store").update(songs).failed == {}


def test_another_feature_configuration_is_refused(songs, tmp_path):
    WritableStore(tmp_path / "store").update(songs)
    other = dataclasses.replace(FeatureConfig(), mel_bins=64)
    with pytest.raises(StoreError, match="mel_bins is 128 there, 64 was asked for"):
        FeatureStore(tmp_path / "store", other)


def test_damage_is_named_and_repaired(songs, tmp_path, counted):
    feature_store = WritableStore(tmp_path / "store")
    feature_store.update(songs)
    (shard,) = (tmp_path / "store").glob("songs-*")
    whole = shard.read_bytes()
    shard.write_bytes(whole[:1000])
    damaged = WritableStore(tmp_path / "store")
    with pytest.raises(StoreError, match="missing or truncated"):
        damaged.shard_paths()
    damaged.update(songs)
    assert shard.read_bytes() == whole
    (tmp_path / "store" / "index.json").write_text("{")
    with pytest.raises(StoreError, match=r"index.json is damaged.*delete"):
        FeatureStore(tmp_path / "store")


def test_other_folders_are_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(StoreError, match="not a feature store"):
        FeatureStore(tmp_path)


def test_content_hash_is_of_the_sound(songs):
    samples, rate = soundfile.read(songs[0].path, dtype="int16")
    # Same sound, other container.
    soundfile.write(songs[1].path, samples, rate, format="WAV")
    extractor = Extractor(FeatureConfig())
    first, copy, other = (extractor.extract(s).content_hash for s in songs[:3])
    assert copy == first
    assert other != first
