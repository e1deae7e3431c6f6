"""Training on several replicas: the course of one process, and workers that die."""

import json
import os
import pathlib
import re
import socket
import subprocess
import sys
import time

import pytest
import yaml

from lca_keras.base import files
from lca_keras.base.errors import UserError
from lca_keras.corpora import synthesis
from lca_keras.models import distribution

TRAIN = """
import os, pathlib, sys
kind, config, folder = sys.argv[1:]
import tensorflow as tf
if kind == "mirrored":
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(
        cpu, [tf.config.LogicalDeviceConfiguration()] * 2
    )
from lca_keras.base.config import Config
from lca_keras.data import corpus
from lca_keras.models import distribution
from lca_keras.workflow import training
strategy = distribution.start(None if kind == "one" else kind)
if kind == "mirrored":
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
config = Config.load(config)
songs = corpus.prepare(corpus.DataSource(data="songs"), config)
division = corpus.divide(config, songs)
sources = corpus.clip_sources(songs, division.part_of, division.artists, config)
classes = len(division.artists)
training.train(config, sources, classes, folder, strategy=strategy)
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory, tiny_config):
    """A folder with a small corpus whose artists have unequal numbers of songs."""
    folder = tmp_path_factory.mktemp("distribution")
    corpus = synthesis.SynthesisConfig(artists=3, albums=3, songs=2, seconds=7.0)
    synthesis.write_corpus(corpus, folder / "songs")
    for path in (folder / "songs/Ada Quill").glob("*/Song 01.flac"):
        path.unlink()
    config = tiny_config.replace(
        train={
            "epochs": 4,
            "warmup_epochs": 2,
            "batch_size": 3,  # Neither of two replicas' equal shares, nor of an epoch.
            "class_weights": "balanced",
            "learning_rate": 1e-4,
            "cf_dropout": 0.0,
        },
        model={"block_dropout": 0.0, "head_dropout": 0.0},
    )
    config.save(folder / "c.yaml")
    return folder


def cluster(index, ports):
    """An environment with the `TF_CONFIG` of one of several workers."""
    workers = [f"localhost:{port}" for port in ports]
    task = {"type": "worker", "index": index}
    config = {"cluster": {"worker": workers}, "task": task}
    return {**os.environ, "TF_CONFIG": json.dumps(config)}


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("localhost", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def train(place, kind, workers=1):
    """The history of a training by `TRAIN`, in as many processes."""
    ports = free_ports(workers)
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", TRAIN, kind, "c.yaml", kind],
            cwd=place,
            env=cluster(index, ports) if workers > 1 else os.environ,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(workers)
    ]
    for process in processes:
        _, said = process.communicate(timeout=300)
        assert process.returncode == 0, said[-2000:]
    return files.read_json(place / kind / "state.json")["history"]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "workers"), [("mirrored", 1), ("multiworker", 2)])
def test_replicas_train_as_one_process_does(place, kind, workers):
    if not (place / "one").exists():
        train(place, "one")
    one = files.read_json(place / "one" / "state.json")["history"]
    many = train(place, kind, workers)
    assert len(many) == len(one) == 4
    for expected, found in zip(one, many, strict=True):
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            assert found[name] == pytest.approx(value, abs=1e-3), name


@pytest.mark.slow
def test_a_worker_that_was_killed_comes_back(place, tmp_path):
    """The other one waits for it, and both go on from the last epoch."""
    config = yaml.safe_load((place / "c.yaml").read_text())
    config["train"].update(epochs=6, cf_dropout=0.5)
    config["model"].update(block_dropout=0.1, head_dropout=0.3)
    (place / "long.yaml").write_text(yaml.safe_dump(config))
    ports = free_ports(2)
    fit = [sys.executable, "-m", "lca_keras.fit", "--strategy", "multiworker"]
    new = ["--data", "songs", "--config", "long.yaml", "--name", "r"]

    def start(index, *options):
        log = open(tmp_path / f"{index}.log", "a")  # noqa: SIM115
        return subprocess.Popen(
            [*fit, *options],
            cwd=place,
            env=cluster(index, ports),
            stdout=log,
            stderr=log,
        )

    first, second = start(0, *new), start(1, *new)
    state = place / "runs/r/checkpoints/state.json"
    try:
        deadline = time.monotonic() + 200
        while not state.exists() or files.read_json(state)["epoch"] < 2:
            assert time.monotonic() < deadline
            assert first.poll() is None, (tmp_path / "0.log").read_text()[-2000:]
            time.sleep(0.2)
        second.kill()
        second.wait()
        second = start(1, "--resume", "runs/r")
        assert first.wait(300) == 0, (tmp_path / "0.log").read_text()[-2000:]
        assert second.wait(60) == 0
    finally:
        first.kill()
        second.kill()
    log = (tmp_path / "0.log").read_text()
    assert "a worker is gone (" in log
    [resumed] = re.findall(r"resuming after epoch (\d)", log)
    assert 2 <= int(resumed) < 6
    assert [row["epoch"] for row in files.read_json(state)["history"]] == [*range(1, 7)]
    assert pathlib.Path(place, "saved_models/r/1/saved_model.pb").exists()
    assert "trained along to epoch 6" in (tmp_path / "1.log").read_text()


@pytest.mark.slow
def test_who_waits_for_a_first_process_that_is_gone_ends(place, tmp_path):
    """The first one meets a folder without songs; the other one need not know why."""
    (place / "empty").mkdir()
    ports = free_ports(2)
    command = [sys.executable, "-m", "lca_keras.fit", "--strategy", "multiworker"]
    command += ["--data", "empty", "--config", "c.yaml", "--name", "gone"]
    processes = [
        subprocess.Popen(
            command,
            cwd=place,
            env=cluster(index, ports),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in (0, 1)
    ]
    try:
        said = [process.communicate(timeout=200)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert "no songs found" in said[0]
    assert "the first process is gone and has not begun" in said[1]
    assert [process.returncode for process in processes] == [1, 1]


@pytest.mark.parametrize(
    "config",
    [
        None,
        "{",
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}',
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": "ps", "index": 0}}',
    ],
)
def test_a_process_that_does_not_know_its_place(config, monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    if config is not None:
        monkeypatch.setenv("TF_CONFIG", config)
    with pytest.raises(UserError, match="TF_CONFIG has to say which of the processes"):
        distribution.start("multiworker")
    assert distribution.start(None) is None
    assert distribution.is_chief(None)
