"""The experiments' commands from their options to their files, at smoke size."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from sklearn.metrics import f1_score

from lca_keras.base import files
from lca_keras.experiments import main

pytestmark = pytest.mark.slow

TINY = ["--preset", "demo", "--epochs", "2", "--warmup-epochs", "1", "--out", "x"]


@pytest.fixture(scope="module")
def place(tiny_corpus, tmp_path_factory):
    """A folder in which experiments share their trainings."""
    return tmp_path_factory.mktemp("experiments")


@pytest.fixture
def here(place, monkeypatch):
    monkeypatch.chdir(place)
    return place


def states(folder):
    """When each training was finished."""
    cells = pathlib.Path(folder, "x", "cells").glob("*/*/cell.json")
    return {str(path): path.stat().st_mtime_ns for path in cells}


def run(name, data, *options, seeds=("0",)):
    given = [] if data is None else ["--data", str(data)]
    assert main([name, *given, *TINY, "--seeds", *seeds, *options]) == 0
    return json.loads(pathlib.Path("x", f"{name}.json").read_text())


def test_tables_share_their_trainings(here, tiny_corpus, capsys):
    first = run("table2", tiny_corpus)
    assert [row[:2] for row in first["tables"][0]["rows"]] == [
        ["CRNN_FGNL", ""],
        ["with LCA", "no"],
        ["with LCA", "yes"],
    ]
    printed = capsys.readouterr().out
    assert "3 trainings, 0 of them done" in printed
    assert "trained in" in printed
    done = states(here)
    assert len(done) == 3
    fourth = run("table4", tiny_corpus)
    run("table2", tiny_corpus)
    assert states(here) == done
    capsys.readouterr()
    assert "of each of the 1 runs: below it in" in fourth["notes"][0]
    # A number in the table is that of the predictions in the run's own folder.
    [folder] = [name for name in fourth["runs"] if "lca-3s" in name]
    rows = files.read_csv(pathlib.Path("x", folder, "predictions_test_song.csv"))
    truth = [row["artist"] for row in rows]
    votes = [row["predicted"] for row in rows]
    f1 = f1_score(truth, votes, average="weighted", zero_division=0)
    record = fourth["tables"][0]["records"][0]
    assert record["songs_mean"] == pytest.approx(f1, abs=1e-6)
    # A run is a run: other commands read it.
    assert pathlib.Path("x", folder, "model.keras").exists()
    pictures = run("figure4", tiny_corpus)
    assert states(here) == done
    assert pathlib.Path("x", pictures["pictures"][0]["file"]).exists()


def test_a_run_deleted_by_hand_is_trained_again_and_comes_out_the_same(
    here, tiny_corpus
):
    before = run("table4", tiny_corpus)
    [name] = before["runs"]
    shutil.rmtree(pathlib.Path("x", name))
    after = run("table4", tiny_corpus)
    assert after["runs"] == before["runs"]
    kept, new = (each["tables"][0]["records"][0] for each in (before, after))
    assert kept["clips_mean"] == pytest.approx(new["clips_mean"], abs=0.02)


def test_other_settings_are_refused_and_more_seeds_are_not(here, tiny_corpus, capsys):
    run("table4", tiny_corpus)
    done = states(here)
    options = [*TINY, "--seeds", "0", "--data", str(tiny_corpus)]
    assert main(["table4", *options, "--level", "none"]) == 1
    message = "other settings (config.features.level: song, not none)"
    assert message in capsys.readouterr().err
    outlasted = ["--data", str(tiny_corpus), "--out", "x", "--epochs", "2"]
    assert main(["table4", *outlasted, "--preset", "demo"]) == 1
    assert "outlasts the training (2)" in capsys.readouterr().err
    for options, message in (
        (["--variants", "none", "none"], "has a variant twice"),
        (["--variants", "lcaa"], "'lcaa' is no part of a variant; these are none, cal"),
    ):
        assert main(["variants", *TINY, "--data", str(tiny_corpus), *options]) == 1
        assert message in capsys.readouterr().err
    assert main(["table4", *TINY, "--data", "nowhere"]) == 1
    assert "no such folder" in capsys.readouterr().err
    (here / "a file").touch()
    assert main(["table4", *TINY[:-1], "a file", "--data", str(tiny_corpus)]) == 1
    assert "--out a file: File exists" in capsys.readouterr().err
    run("table4", tiny_corpus, seeds=("0", "1"))
    assert done.items() <= states(here).items()
    assert len(states(here)) == len(done) + 1


def test_vocals_come_from_a_folder_of_the_same_names(here, tiny_corpus, capsys):
    voices = here / "voices"
    for path in sorted(tiny_corpus.glob("stems/*/*/*/vocals.flac")):
        artist, album, song = path.parts[-4:-1]
        target = voices / artist / album / f"{song}.flac"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    missing = next(voices.rglob("*.flac"))
    aside = missing.rename(here / "aside.flac")
    options = ["--vocals", str(voices), "--clip-seconds", "3"]
    everything = ["--data", str(tiny_corpus), *TINY, "--seeds", "0", *options]
    assert main(["table3", *everything]) == 1
    message = capsys.readouterr().err
    assert "1 of 18 songs are not there by name, the first is" in message
    aside.rename(missing)
    third = run("table3", tiny_corpus, *options, "--published")
    labels = [row[:3] for row in third["tables"][0]["rows"]]
    assert len(labels) == 8
    assert labels[4:] == [["vocal-only", *rest] for _, *rest in labels[:4]]
    assert third["tables"][0]["rows"][2][-1] == "0.52 / 0.72"
    assert third["tables"][0]["rows"][6][-1] == ""


def test_terms_variants_noise_and_confounding(here, tiny_corpus):
    first = run("table1", tiny_corpus)
    assert len(first["tables"][0]["rows"]) == 7
    variants = run("variants", tiny_corpus, "--variants", "none", "remix")
    rows = variants["tables"][0]["rows"]
    assert [row[0] for row in rows] == ["none", "remix"]
    assert all("/" in row[-1] for row in rows)  # The voice report's shares.

    noise = run("figure1", tiny_corpus, "--variants", "none", "remix")
    record = noise["tables"][0]["records"][0]
    for name in ("as_in_training", "clean", "noised"):
        assert 0 <= record[f"{name}_songs_mean"] <= 1
    assert 0 < record["cam_in_band_fgnl_mean"] < 1
    for picture in noise["pictures"]:
        assert pathlib.Path("x", picture["file"]).exists()
    biased = files.read_csv(pathlib.Path("x", "corpora", "biased", "manifest.csv"))
    assert {row["artist"] for row in biased if row["biased"] == "1"} == {"Ada Quill"}

    size = ["--artists", "3", "--albums", "3", "--songs", "2", "--seconds", "7"]
    options = ["--values", "0.9", "--variants", "none", "vocals", *size]
    found = run("confounding", None, *options)
    records = found["tables"][0]["records"]
    assert [each["variant"] for each in records] == ["none", "vocals"]
    assert 0 < records[0]["cam_on_voice_fgnl_mean"] < 1
    assert "follows_voice_mean" not in records[1]
    curves = files.read_csv(pathlib.Path("x", "confounding_curves.csv"))
    assert {row["test_bands"] for row in curves} == {"own", "any", "other"}
    size = ["--artists", "8", "--albums", "3", "--songs", "2", "--seconds", "7"]
    found = run("strangers", None, "--values", "0.5", "--variants", "remix+aam", *size)
    (record,) = found["tables"][0]["records"]
    assert 0 <= record["auroc_songs_mean"] <= 1
    assert record["not named: silence_mean"] == 1
    assert 0 <= record["alternating_mean"] <= 2
    ways = [each["score"] for each in found["tables"][1]["records"]]
    assert "energy" in ways
    assert "voiceprint: cosine, songs whitened" in ways
    assert main(["report", "x"]) == 0
    page = pathlib.Path("x", "report.html").read_text()
    assert page.count("<section") == len(list(pathlib.Path("x").glob("*.json")))


def test_two_processes_and_a_kill_come_to_the_result_of_one(tiny_corpus, tmp_path):
    command = [sys.executable, "-m", "lca_keras.experiments", "table2"]
    command += ["--data", str(tiny_corpus), *TINY, "--seeds", "0"]

    def start(folder, *more):
        folder.mkdir(exist_ok=True)
        # A group of its own, so that a kill is the command's alone.
        return subprocess.Popen(
            [*command, *more],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": os.getcwd()},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    alone = start(tmp_path / "alone")
    assert alone.communicate()[0].count("written to") == 1
    killed = start(tmp_path / "two", "--jobs", "2")
    cells = tmp_path / "two" / "x" / "cells"
    deadline = time.monotonic() + 300
    while not list(cells.glob("*/*/checkpoints/state.json")):
        assert time.monotonic() < deadline
        assert killed.poll() is None
        time.sleep(0.1)
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate()
    again = start(tmp_path / "two", "--jobs", "2")
    printed = again.communicate()[0]
    assert again.returncode == 0, printed
    assert "in 2 processes" in printed or "trainings, 3 of them done" in printed
    assert "a helping process died" not in printed
    # What helpers have to say is empty but for TensorFlow's own noise.
    assert "Error" not in (tmp_path / "two" / "x" / "helpers.log").read_text()
    tables = [
        json.loads((tmp_path / name / "x" / "table2.json").read_text())["tables"]
        for name in ("alone", "two")
    ]
    for ours, theirs in zip(*(each[0]["records"] for each in tables), strict=True):
        assert ours["variant"] == theirs["variant"]
        # Threads add in another order; beyond that they are the same trainings.
        assert ours["clips_mean"] == pytest.approx(theirs["clips_mean"], abs=0.05)
    assert not np.isnan(ours["clips_mean"])
