"""Many songs: a table that goes on where it was left, in several processes."""

import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import soundfile

from lca_keras import predict
from lca_keras.base import files
from lca_keras.base.errors import UserError
from lca_keras.exports import integrity
from lca_keras.inference import identification, many, runtimes
from tests.exports.material import song


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Twelve songs, the last of them none, in a folder."""
    monkeypatch.chdir(tmp_path)
    place = pathlib.Path("the 'songs'")
    place.mkdir()
    for seed in range(11):
        soundfile.write(place / f"Ж {seed:02d}.wav", song(6.0, seed), 16000)
    (place / "Ж 11.wav").write_bytes(b"RIFF")
    return place


def table_of(path):
    if path.endswith(".csv"):
        return files.read_csv(path)
    import pyarrow.parquet

    return pyarrow.parquet.read_table(path).to_pylist()


@pytest.mark.parametrize("kind", ["csv", "parquet"])
@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_table_goes_on_where_it_was_left(exported, folder, capsys, kind, workers):
    command = ["--model", str(exported), str(folder), "--workers", workers]
    out = f"o.{kind}"
    assert predict.main([*command, "--out", out]) == 1
    said = capsys.readouterr().err
    assert "12 songs, 1 failed" in said
    assert "Ж 11.wav: " in said
    rows = table_of(out)
    assert [row["song"] for row in rows] == sorted(map(str, folder.iterdir()))
    for row in rows[:3]:
        alone = identification.Identifier(exported).identify(row["song"])
        assert row["singer"] == alone.singer
        assert int(row["votes"]) == alone.votes[alone.singer]
        assert int(row["clips"]) == len(alone.clips)
        probability = alone.probabilities[alone.singer]
        assert float(row["probability"]) == pytest.approx(probability, abs=2e-6)
    assert not rows[11]["singer"]
    assert rows[11]["error"]
    # One is mended, one has changed, one is new: those are heard, and no other.
    soundfile.write(folder / "Ж 11.wav", song(6.0, 11), 16000)
    soundfile.write(folder / "Ж 03.wav", song(9.0, 3), 16000)
    soundfile.write(folder / "Я.wav", song(6.0, 12), 16000)
    assert predict.main([*command, "--out", out]) == 0
    assert "10 of 13 songs are in o." in capsys.readouterr().err
    again = table_of(out)
    assert len(again) == 13
    assert again[:3] == rows[:3]
    assert int(again[3]["clips"]) == 2 + 1
    assert again[11]["singer"]
    # A folder less: what was said before stays in the table.
    (folder / "Я.wav").unlink()
    assert predict.main([*command, "--out", out]) == 0
    assert table_of(out) == again
    assert not list(pathlib.Path().glob("*.part"))


def test_answers_of_another_model_or_way_are_not_mixed(exported, folder, capsys):
    one = str(folder / "Ж 01.wav")
    command = ["--model", str(exported), one, "--out", "o.csv"]
    assert predict.main(command) == 0
    for other in (["--overlap", "0.5"], ["--min-confidence", "0.9"], ["--vocals"]):
        assert predict.main([*command, *other]) == 1
        assert "take another file, or delete it" in capsys.readouterr().err
    for text in ("a,b\n1,2\n", "a,b\n"):
        pathlib.Path("list.csv").write_text(text)
        assert predict.main([*command[:-1], "list.csv"]) == 1
        assert "list.csv is no table of answers" in capsys.readouterr().err
        assert pathlib.Path("list.csv").read_text() == text
    for wrong, message in (
        (["--out", "o.txt"], "expected a .csv or a .parquet"),
        (["--out", "no/o.csv"], "no such folder"),
        (["--workers", "0"], "--workers must be at least 1"),
    ):
        assert predict.main([*command[:-2], *wrong]) == 1
        assert message in capsys.readouterr().err


@pytest.mark.slow
def test_killed_it_goes_on_and_ends_as_if_undisturbed(exported, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    place = pathlib.Path("songs")
    place.mkdir()
    for seed in range(40):
        soundfile.write(place / f"{seed:02d}.wav", song(30.0, seed), 16000)
    command = [sys.executable, "-m", "lca_keras.predict", "--model", str(exported)]
    command += ["songs", "--out"]
    for seconds in (2.5, 3, 4):
        process = subprocess.Popen(
            [*command, "o.csv"], stderr=subprocess.DEVNULL, start_new_session=True
        )
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    assert pathlib.Path("o.csv.part").exists() or pathlib.Path("o.csv").exists()
    subprocess.run([*command, "o.csv"], check=True, stderr=subprocess.DEVNULL)
    subprocess.run([*command, "whole.csv"], check=True, stderr=subprocess.DEVNULL)
    assert files.read_csv("o.csv") == files.read_csv("whole.csv")
    assert not pathlib.Path("o.csv.part").exists()


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_nothing_goes_on_after_its_end(exported, tmp_path, monkeypatch, how):
    """Neither after Ctrl-C, which reaches the workers too, nor when it is killed."""
    monkeypatch.chdir(tmp_path)
    pathlib.Path("songs").mkdir()
    samples = song(120.0)
    for number in range(60):
        soundfile.write(f"songs/{number:02d}.wav", samples, 16000)
    command = [sys.executable, "-m", "lca_keras.predict", "--model", str(exported)]
    process = subprocess.Popen(
        [*command, "songs", "--out", "o.csv"],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    part = pathlib.Path("o.csv.part")
    while process.poll() is None and not (part.exists() and part.stat().st_size > 999):
        time.sleep(0.05)
    if how == signal.SIGINT:
        os.killpg(process.pid, how)
    else:
        process.kill()
    start = time.monotonic()
    _, said = process.communicate(timeout=30)
    if how == signal.SIGINT:
        assert process.returncode == 130, said
        assert "Interrupted." in said
        assert "Traceback" not in said
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            break
        time.sleep(0.2)
    else:
        raise AssertionError("processes of it are still there")
    assert time.monotonic() - start < 30
    assert len(part.read_text().splitlines()) < 60


def _die_of(identifier, song):
    if song == "bad":
        os.kill(os.getpid(), signal.SIGKILL)
    return f"fine {song}"


def _open_nothing(threads):
    return None


def test_a_song_that_brings_its_process_down_is_one_song_less():
    songs = ["a", "bad", "b", "c"]
    found = dict(many.ask_each(_die_of, songs, None, _open_nothing, workers=2))
    assert found.pop("bad").startswith("brings its process down")
    assert found == {name: f"fine {name}" for name in "abc"}


# === Runtimes ===


@pytest.mark.parametrize("overlap", [0.0, 0.75])
def test_litert_says_what_tensorflow_says(exported, folder, overlap):
    light = identification.Identifier(exported)
    heavy = identification.Identifier(exported, runtime="tensorflow")
    alone = identification.Identifier(exported / "model.tflite")
    assert light.runtime.name == alone.runtime.name == "litert"
    assert heavy.runtime.name == "tensorflow"
    for path in sorted(folder.iterdir())[:3]:
        expected = heavy.identify(path, overlap=overlap)
        for each in (light, alone):
            found = each.identify(path, overlap=overlap)
            assert found.singer == expected.singer
            assert found.votes == expected.votes
            ours, theirs = (
                np.array([list(c["probabilities"].values()) for c in said.clips])
                for said in (found, expected)
            )
            np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_predict_needs_neither_tensorflow_nor_keras(exported, folder):
    """Nor what else takes seconds to load."""
    program = """
import sys
from lca_keras import predict
code = predict.main(["--model", sys.argv[1], sys.argv[2]])
heavy = {"tensorflow", "keras", "librosa", "numba", "sklearn", "torch", "matplotlib"}
print(code, heavy & set(sys.modules))
"""
    done = subprocess.run(
        [sys.executable, "-c", program, exported, next(folder.glob("*.wav"))],
        capture_output=True,
        text=True,
    )
    assert done.stdout.splitlines()[-1] == "0 set()", done
    assert done.stderr == ""


@pytest.mark.skipif(
    not runtimes.hardware.multiplies_bfloat16(), reason="no bfloat16 on this processor"
)
def test_bfloat16_is_close_to_float32_and_leaves_that_alone(exported, folder):
    """In one process, in turns: answers of either do not depend on the other."""
    heavy = identification.Identifier(exported, runtime="tensorflow")
    half = identification.Identifier(exported, precision="bfloat16")
    assert half.runtime.name == "tensorflow"
    assert half.digest != heavy.digest
    rng = np.random.default_rng(0)
    config = half.config
    shape = (40, config.served_features.mel_bins, config.clip_frames, 1)
    clips = {"mel_spectrogram": rng.normal(-40, 20, shape).astype("float32")}
    before = heavy.runtime.answers(clips)["probabilities"]
    found = half.runtime.answers(clips)["probabilities"]
    after = heavy.runtime.answers(clips)["probabilities"]
    np.testing.assert_array_equal(after, before)
    # Eight bits, over some layers; equal would be float32.
    assert 1e-5 < np.abs(found - before).max() < 2e-2
    apart = np.sort(before)[:, -1] - np.sort(before)[:, -2] > 2e-2
    assert apart.sum() >= 20
    same = found.argmax(axis=1) == before.argmax(axis=1)
    assert same[apart].all()
    song = next(folder.glob("*.wav"))
    assert half.identify(song).votes == heavy.identify(song).votes


def test_what_does_not_compute_is_named(exported):
    for wrong in ({"runtime": "tensorrt"}, {"precision": "float16"}):
        (value,) = wrong.values()
        with pytest.raises(UserError, match=f"{value}.*take one of"):
            identification.Identifier(exported, **wrong)


def test_where_bfloat16_is_not_to_be_had(exported, monkeypatch):
    with pytest.raises(UserError, match="needs --runtime tensorflow"):
        identification.Identifier(exported, runtime="litert", precision="bfloat16")
    with pytest.raises(UserError, match="leave out --precision"):
        identification.Identifier(exported / "model.tflite", precision="bfloat16")
    monkeypatch.setattr(runtimes.hardware, "multiplies_bfloat16", lambda: False)
    with pytest.raises(UserError, match="does not multiply bfloat16"):
        identification.Identifier(exported, precision="bfloat16")


def test_an_export_without_sums_is_not_whole(exported, tmp_path):
    shutil.copytree(exported, tmp_path / "1")
    (tmp_path / "1" / integrity.SUMS).unlink()
    with pytest.raises(UserError, match="not a whole export, it has no SHA256SUMS"):
        identification.Identifier(tmp_path)


def test_runtimes_that_are_not_there(exported, monkeypatch, tmp_path):
    def absent(name):
        return None if name == missing else object()

    monkeypatch.setattr(runtimes.importlib.util, "find_spec", absent)
    missing = "ai_edge_litert"
    with pytest.raises(UserError, match=r"litert is not installed: .*\[runtime\]"):
        identification.Identifier(exported, runtime="litert")
    with pytest.raises(UserError, match=r"needs the runtime litert"):
        identification.Identifier(exported / "model.tflite")
    assert identification.Identifier(exported).runtime.name == "tensorflow"
    missing = "tensorflow"
    with pytest.raises(UserError, match=r"tensorflow is not installed: .*\[train\]"):
        identification.Identifier(exported, runtime="tensorflow")
    with pytest.raises(UserError, match="is for the runtime litert"):
        identification.Identifier(exported / "model.tflite", runtime="tensorflow")
    (tmp_path / "x.tflite").write_bytes(b"no")
    with pytest.raises(UserError, match="no TFLite file of this package"):
        identification.Identifier(tmp_path / "x.tflite")
