"""Searches in processes of their own: kills, late and dying workers; minutes."""

import json
import os
import pathlib
import random
import signal
import socket
import subprocess
import sys
import time

import pytest

from lca_keras import files
from tuning import runner, search

pytestmark = pytest.mark.slow

SPACE = (
    "{main: 1, cf_ratio: 0.5, ent_cf: 0.5, ent_main_ratio: {values: [0.1, 0.2]},"
    " att: {values: [0.1, 0.3, 0.5]}}"
)


@pytest.fixture
def command(tiny_corpus, tiny_config, tmp_path, monkeypatch):
    """A search of six trials of some seconds, as a list of words."""
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
def address():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{found.getsockname()[1]}"


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
    found = search.Search(**files.read_json(folder / "search.json"))
    rows = runner.results(folder, found)
    scores = {json.dumps(row["values"], sort_keys=True): row["score"] for row in rows}
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


def test_five_kills_leave_a_whole_table(command, start):
    command = [*command, "--seeds", "2"]
    subprocess.run([*command, "--name", "whole"], check=True)
    rng = random.Random(1)
    for _ in range(5):
        process = start([*command, "--name", "cut"], "cut.log")
        time.sleep(rng.uniform(7, 16))
        if process.poll() is None:
            kill(process)
    subprocess.run([*command, "--name", "cut"], check=True)
    assert table("cut") == table("whole")
    assert len(table("whole")) == 6


def test_workers_come_late_and_die_and_the_chief_too(command, address, start):
    subprocess.run([*command, "--name", "alone"], check=True)
    words = [*command, "--name", "many", "--chief", address]
    chief = start(words, "chief.log")
    first = start([*words, "--worker", "one"], "one.log")
    wait_for(lambda: ended("many") >= 1, 120, "one.log")
    kill(first)  # In the middle of its second trial.
    before = ended("many")
    second = start([*words, "--worker", "two"], "two.log")  # Late.
    wait_for(lambda: ended("many") > before, 120, "two.log")
    kill(chief)
    chief = start(words, "chief.log")
    third = start([*words, "--worker", "three"], "three.log")
    for process, log in (
        (chief, "chief.log"),
        (second, "two.log"),
        (third, "three.log"),
    ):
        assert process.wait(timeout=240) == 0, pathlib.Path(log).read_text()
    assert "worker one is gone; trial" in pathlib.Path("chief.log").read_text()
    assert table("many") == table("alone")
    assert pathlib.Path("searches/many/best.yaml").exists()


def test_a_port_that_is_taken_and_a_name_that_is(command, address, start):
    words = [*command, "--name", "s", "--chief", address]
    start(words, "chief.log")
    wait_for(
        lambda: "waiting" in pathlib.Path("chief.log").read_text(), 90, "chief.log"
    )
    again = [*command, "--name", "other", "--chief", address]
    done = subprocess.run(
        again, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 1
    assert f"--chief {address}: cannot listen there" in done.stderr
    with files.lock("searches/s/.worker-w.lock"):
        done = subprocess.run(
            [*words, "--worker", "w"], capture_output=True, text=True, check=False
        )
    assert done.returncode == 1
    assert "another process is at work" in done.stderr
    done = subprocess.run(
        [*words, "--worker", "my chief"], capture_output=True, text=True, check=False
    )
    assert "use letters, digits" in done.stderr
