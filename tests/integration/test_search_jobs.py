"""Searches in processes of their own: kills, late and dying workers; minutes."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from tuning import trials
from tuning.journal import Journal

pytestmark = pytest.mark.slow

SPACE = (
    "{main: 1, cf_ratio: 0.5, ent_cf: 0.5, ent_main_ratio: {values: [0.1, 0.2]},"
    " att: {values: [0.1, 0.5]}}"
)


@pytest.fixture
def command(tiny_corpus, tiny_config, tmp_path, monkeypatch):
    """A search of four trials of some seconds, as a list of words."""
    monkeypatch.chdir(tmp_path)
    config = tiny_config.replace(
        train={"epochs": 3, "warmup_epochs": 2},
        split={"file": str(tiny_corpus / "split.csv")},
    )
    config.save("base.yaml")
    pathlib.Path("space.yaml").write_text(SPACE)
    words = [sys.executable, "-m", "tuning.search", "--data", str(tiny_corpus)]
    words += ["--base-config", "base.yaml", "--space", "space.yaml"]
    return [*words, "--algorithm", "grid"]


@pytest.fixture
def start():
    """Starts processes with their output in a file, and ends them with the test."""
    processes = []

    def begin(words, log):
        with open(log, "ab") as file:
            process = subprocess.Popen(
                words, stdout=file, stderr=file, start_new_session=True
            )
        processes.append(process)
        return process

    yield begin
    for process in processes:
        if process.poll() is None:
            kill(process)


def kill(process):
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def table(name):
    """Score by values; every trial once."""
    folder = pathlib.Path("searches", name)
    rows = trials.results(folder, Journal(folder / "events.jsonl").read())
    scores = {json.dumps(row.values, sort_keys=True): row.score for row in rows}
    assert len(scores) == len(rows)
    return scores


def wait_for(condition, seconds, log):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, pathlib.Path(log).read_text()
        time.sleep(0.2)


def ended(name):
    path = pathlib.Path("searches", name, "events.jsonl")
    return path.read_text().count('"end"') if path.exists() else 0


def epochs_done(name):
    """Epochs that a search's processes have finished so far, warm-up included."""
    states = pathlib.Path("searches", name).glob("**/state.json")
    return sum(len(json.loads(path.read_text())["history"]) for path in states)


def test_five_kills_leave_a_whole_table(command, start):
    """One while it starts; the others after some more epochs or trials each."""
    command = [*command, "--seeds", "2"]
    subprocess.run([*command, "--name", "whole"], check=True)
    process = start([*command, "--name", "cut"], "cut.log")
    time.sleep(1)
    kill(process)
    for more in (1, 2, 1, 2):
        before = ended("cut"), epochs_done("cut")
        process = start([*command, "--name", "cut"], "cut.log")
        wait_for(
            lambda before=before, more=more: (
                ended("cut") > before[0] or epochs_done("cut") >= before[1] + more
            ),
            240,
            "cut.log",
        )
        kill(process)
    subprocess.run([*command, "--name", "cut"], check=True)
    assert table("cut") == table("whole")
    assert len(table("whole")) == 4


def test_processes_come_late_and_die(command, start):
    command = [*command, "--seeds", "4"]  # Or the first is done before the others come.
    subprocess.run([*command, "--name", "alone"], check=True)
    words = [*command, "--name", "many", "--worker"]
    first = start([*words, "one"], "one.log")
    wait_for(lambda: ended("many") >= 1, 240, "one.log")
    second = start([*words, "two"], "two.log")  # Late.
    begun = '"worker": "two"'
    events = pathlib.Path("searches/many/events.jsonl")
    wait_for(lambda: begun in events.read_text(), 240, "two.log")
    kill(first)  # In the middle of a trial.
    third = start([*words, "three"], "three.log")
    for process, log in ((second, "two.log"), (third, "three.log")):
        assert process.wait(timeout=400) == 0, pathlib.Path(log).read_text()
        # Each shows the whole table's end, and the best.
        assert "best       trial" in pathlib.Path(log).read_text()
    said = pathlib.Path("two.log").read_text() + pathlib.Path("three.log").read_text()
    assert "one is gone; trial" in said
    assert table("many") == table("alone")
    assert pathlib.Path("searches/many/best.yaml").exists()


def test_comparisons_share_their_cells(command, start):
    """Two reports at once: each training is done by one of them."""
    subprocess.run([*command, "--name", "s", "--trials", "2"], check=True)
    words = [sys.executable, "-m", "tuning.report", "s", "--compare", "1"]
    both = [start(words, f"{name}.log") for name in ("a", "b")]
    for process, log in zip(both, ("a.log", "b.log"), strict=True):
        assert process.wait(timeout=600) == 0, pathlib.Path(log).read_text()
    cells = sorted(pathlib.Path("searches/s/compare").glob("*/cell.json"))
    assert len(cells) == 4
    seconds = sum(json.loads(path.read_text())["seconds"] for path in cells)
    written = [path.stat().st_mtime for path in cells]
    # Had each computed all, as much again would have been written later.
    assert max(written) - min(written) < seconds
    printed = [pathlib.Path(log).read_text() for log in ("a.log", "b.log")]
    tables = [[x for x in text.splitlines() if "| best |" in x] for text in printed]
    assert tables[0] == tables[1] != []
