import json
import shutil

import numpy as np
import pytest
import soundfile
import soxr

from lca_keras import doctor
from lca_keras.base.config import get_preset
from lca_keras.corpora import synthesis
from lca_keras.data.corpus import DataSource, prepare


def found(folder, *options):
    """Runs the command; returns its exit code, its findings and the whole report."""
    report = folder.parent / "report.json"
    code = doctor.main([str(folder), "--json", str(report), *options])
    content = json.loads(report.read_text(encoding="utf-8"))
    findings = {}
    for finding in content["findings"]:
        findings.setdefault(finding["kind"], []).append(finding)
    return code, findings, content


@pytest.fixture
def corpus(tiny_corpus, tmp_path):
    """A sound corpus, to be spoilt."""
    root = tmp_path / "my 'songs' 🎵"
    ignored = shutil.ignore_patterns("stems", "*.csv", "*.json")
    shutil.copytree(tiny_corpus, root, ignore=ignored)
    return root


def test_a_sound_corpus_is_left_in_peace(corpus, capsys):
    code, findings, report = found(corpus)
    assert (code, findings) == (0, {})
    assert report["songs"] == 18
    assert report["hours"] == pytest.approx(18 * 7 / 3600, abs=1e-3)
    assert report["artists"]["Björn Talvik"]["albums"] == 3
    out = capsys.readouterr().out
    assert "3 artists, 18 songs" in out
    assert "0 errors, 0 warnings" in out


def test_every_planted_fault_is_found(corpus, tmp_path):
    ada, bjorn = corpus / "Ada Quill", corpus / "Björn Talvik"
    album = ada / "Album 01"
    rate = 16000

    def read(path):
        return soundfile.read(path, dtype="float32")[0]

    original = read(ada / "Album 02" / "Song 01.flac")
    (album / "zero.mp3").write_bytes(b"")
    (album / "lyrics.mp3").write_text("la la la\n" * 500)
    soundfile.write(album / "silence.wav", np.zeros(8 * rate), rate)
    other = synthesis.SynthesisConfig(
        artists=9, albums=3, songs=2, seconds=7.0, seed=77
    )

    def fresh(number):
        return synthesis.synthesize(other, number, 0, 0).mixture

    soundfile.write(album / "short.wav", fresh(0)[:rate], rate)
    loud = np.clip(fresh(1) * 8, -1, 1)
    soundfile.write(album / "loud.wav", loud, rate)
    soundfile.write(album / "mono.wav", np.stack([fresh(2)] * 2, axis=1), rate)
    one_sided = np.stack([fresh(3), 0 * fresh(3)], axis=1)
    soundfile.write(album / "left.wav", one_sided, rate)
    soundfile.write(album / "odd.wav", soxr.resample(fresh(4), rate, 17000), 17000)
    # A best-of: the same file, and a lossy, softer copy with 20 ms in front.
    shutil.copy(ada / "Album 02" / "Song 02.flac", ada / "Album 03" / "best of.flac")
    again = np.concatenate([np.zeros(320, "float32"), original * 0.708])
    copy = corpus / "Chiara d'Onda" / "Album 01" / "cover.mp3"
    soundfile.write(
        copy,
        soxr.resample(again, rate, 44100),
        44100,
        format="MP3",
        bitrate_mode="CONSTANT",
        compression_level=0.9,
    )
    shutil.copy(bjorn / "Album 01" / "Song 01.flac", bjorn / "Album 01" / "again.flac")
    shutil.rmtree(bjorn / "Album 03")
    code, findings, report = found(corpus)
    assert code == 1
    names = {
        kind: sorted(f["where"].split(" / ")[-1] for f in entries)
        for kind, entries in findings.items()
    }
    assert names == {
        "unreadable": ["lyrics", "zero"],
        "silent": ["silence"],
        "too short": ["short"],
        "clipped": ["loud"],
        "mono as stereo": ["mono"],
        "silent channel": ["left"],
        "odd rate": ["cover", "odd"],
        "duplicate across albums": ["Song 02"],
        "duplicate across artists": ["Song 01"],
        "duplicate in album": ["Song 01"],
        "too few albums": ["Björn Talvik"],
    }
    (across,) = findings["duplicate across artists"]
    assert "cover.mp3" in across["message"]
    (same,) = findings["duplicate across albums"]
    assert "the same samples as Ada Quill / Album 03 / best of" in same["message"]
    severities = {f["kind"]: f["severity"] for f in report["findings"]}
    warnings = {kind for kind, s in severities.items() if s == "warning"}
    assert warnings == {
        *("clipped", "mono as stereo", "silent channel", "odd rate"),
        "duplicate in album",
    }


def test_warnings_alone_do_not_fail(corpus):
    path = corpus / "Ada Quill" / "Album 01" / "Song 01.flac"
    samples, rate = soundfile.read(path)
    soundfile.write(path, np.stack([samples, samples], axis=1), rate)
    code, findings, _ = found(corpus)
    assert (code, list(findings)) == (0, ["mono as stereo"])


def test_a_rate_that_tells_the_artist(corpus):
    for path in (corpus / "Ada Quill").rglob("*.flac"):
        samples, rate = soundfile.read(path)
        soundfile.write(path, soxr.resample(samples, rate, 8000), 8000)
    code, findings, _ = found(corpus)
    assert code == 1
    (finding,) = findings["rate tells artist"]
    assert finding["where"] == "Ada Quill"
    assert len(findings["odd rate"]) == 6


def test_what_tells_the_artist(corpus):
    for path in (corpus / "Ada Quill").rglob("*.flac"):
        samples, rate = soundfile.read(path)
        resampled = soxr.resample(samples / 20, rate, 48000)
        stereo = np.stack([resampled, 0.9 * resampled], axis=1)
        soundfile.write(path.with_suffix(".ogg"), stereo, 48000)
        path.unlink()
    code, findings, _ = found(corpus)
    assert code == 0
    for what, value in {
        "format": "100% of the recordings are ogg, of other artists' 0%",
        "rate": "are 48000 Hz",
        "channels": "are 2 channels",
        "loudness": "without overlap",
    }.items():
        told = {f["where"]: f["message"] for f in findings[f"{what} tells artist"]}
        assert value in told["Ada Quill"]


def test_advice_that_can_be_followed(corpus):
    for song in (corpus / "Ada Quill").glob("*/*.flac"):
        if song.parent.name != "Album 01":
            song.unlink()
    _, findings, _ = found(corpus)
    (finding,) = findings["too few albums"]
    assert "--split song" not in finding["message"]  # Two songs are too few for it.
    for name in ("Song 03", "Song 04"):
        samples, rate = soundfile.read(song.parents[1] / "Album 01" / "Song 01.flac")
        samples = samples[::-1] if name == "Song 03" else np.roll(samples[::-1], 9999)
        soundfile.write(song.parents[1] / "Album 01" / f"{name}.flac", samples, rate)
    _, findings, _ = found(corpus)
    assert "or use --split song" in findings["too few albums"][0]["message"]


def test_look_alikes_are_named(corpus):
    (corpus / "Ada Quill" / "Album 03").rename(corpus / "Album 03")
    (corpus / "ada  quill.").mkdir()
    (corpus / "Album 03").rename(corpus / "ada  quill." / "Album 03")
    _, findings, _ = found(corpus)
    (finding,) = findings["look-alike artists"]
    assert (finding["where"], finding["severity"]) == ("Ada Quill", "warning")
    assert "looks like 'ada quill.'" in finding["message"]


def test_files_that_are_not_used_are_named(corpus):
    shutil.copy(next(corpus.glob("*/*/*.flac")), corpus / "loose.flac")
    half = corpus / "Ada Quill" / "Album 01" / "Song 01.flac"
    half.write_bytes(half.read_bytes()[: half.stat().st_size * 3 // 4])
    code, findings, report = found(corpus)
    assert (code, report["left_out"]) == (0, 1)
    assert findings["left out"][0]["path"] == str(corpus / "loose.flac")
    assert "cut off or damaged" in findings["not whole"][0]["message"]


def test_unequal_shares_and_one_artist(corpus):
    for song in (corpus / "Ada Quill").glob("*/Song 01.flac"):
        samples, rate = soundfile.read(song)
        soundfile.write(song, samples[: 3 * rate + 600], rate)
        (song.parent / "Song 02.flac").unlink()
    _, findings, _ = found(corpus)
    assert "of Ada Quill: accuracy will favour" in findings["imbalance"][0]["message"]
    shutil.rmtree(corpus / "Björn Talvik")
    shutil.rmtree(corpus / "Chiara d'Onda")
    code, findings, _ = found(corpus)
    assert code == 1
    assert set(findings) == {"one artist"}


def test_longer_clips_ask_for_longer_songs(corpus):
    code, findings, _ = found(corpus, "--clip-seconds", "10")
    assert code == 1
    assert len(findings["too short"]) == 18


def test_what_cannot_be_examined(tmp_path, capsys):
    assert doctor.main([str(tmp_path / "nowhere")]) == 1
    assert "no such folder" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert doctor.main([str(tmp_path / "empty")]) == 1
    assert "no songs found" in capsys.readouterr().err
    assert doctor.main([str(tmp_path), "--json", str(tmp_path / "no" / "a.json")]) == 1
    assert "cannot be written there" in capsys.readouterr().err


def test_a_jingle_is_no_copy(corpus):
    """A podcast's greeting before nine songs is one warning, not 36 errors."""
    other = synthesis.SynthesisConfig(artists=4, albums=3, songs=2, seconds=4.0, seed=9)
    jingle = synthesis.synthesize(other, 3, 0, 0).mixture
    begun = sorted(corpus.glob("Ada*/*/*.flac")) + sorted(corpus.glob("Bj*/*/*.flac"))
    for path in begun[:9]:
        samples, rate = soundfile.read(path, dtype="float32")
        soundfile.write(path, np.concatenate([jingle, samples]), rate)
    code, findings, _ = found(corpus)
    assert code == 0
    assert set(findings) == {"shared passage"}
    (finding,) = findings["shared passage"]
    assert "about 4 s with Ada Quill" in finding["message"]
    assert finding["message"].count(" / ") == 8
    assert "and 4 more" in finding["message"]


@pytest.mark.parametrize("speed", [0.98, 1.03])
def test_copies_at_another_speed(corpus, speed):
    samples, rate = soundfile.read(corpus / "Ada Quill" / "Album 02" / "Song 01.flac")
    copy = soxr.resample(samples, rate, rate / speed)
    soundfile.write(corpus / "Björn Talvik" / "Album 01" / "x.wav", copy, rate)
    code, findings, _ = found(corpus)
    assert code == 1
    (finding,) = findings["duplicate across artists"]
    assert finding["where"] == "Ada Quill / Album 02 / Song 01"
    # It is said of the song, whose copy is the other way round.
    change = "2.0% faster" if speed < 1 else "3.0% slower"
    assert f", {change}, as Björn Talvik / Album 01 / x" in finding["message"]


def test_a_copy_whose_channels_cancel_is_heard(corpus):
    samples, rate = soundfile.read(corpus / "Ada Quill" / "Album 02" / "Song 01.flac")
    copy = np.stack([samples, -samples], axis=1)
    soundfile.write(corpus / "Björn Talvik" / "Album 01" / "x.wav", copy, rate)
    _, findings, _ = found(corpus)
    assert len(findings["duplicate across artists"]) == 1
    (finding,) = findings["not whole"]
    assert "cancel out" in finding["message"]


def test_songs_that_are_mostly_silent_are_no_songs(corpus):
    """As in `fit`, which has nothing to learn from there."""
    for path in (corpus / "Ada Quill" / "Album 01").iterdir():
        samples, rate = soundfile.read(path)
        few = np.concatenate([samples[: 2 * rate], np.zeros(9 * rate)])
        soundfile.write(path, few, rate)
    code, findings, _ = found(corpus)
    assert code == 1
    assert len(findings["too short"]) == 2
    assert "s without its silence, a clip needs 2.976" in str(findings["too short"])
    (finding,) = findings["too few albums"]
    assert finding["where"] == "Ada Quill"
    config = get_preset("demo")
    source = DataSource(data=str(corpus), features=str(corpus.parent / "features"))
    assert len(prepare(source, config).skipped) == 2
