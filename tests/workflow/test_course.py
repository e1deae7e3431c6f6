"""A run from its configuration to an export, in three lines of Python."""

import pathlib
import shutil
import subprocess
import sys

import pytest

from lca_keras import Run
from lca_keras.base import files
from lca_keras.base.config import Config
from lca_keras.base.errors import UserError
from lca_keras.base.observer import Observer
from lca_keras.exports import versions
from lca_keras.workflow import records, training
from tests.test_commands import FailAt, PowerFailure


class Watcher(Observer):
    """Keeps what it is told."""

    def __init__(self):
        self.seen, self.lines = {}, []

    def note(self, text):
        self.lines.append(text)

    def told(self, what, values):
        self.seen[what] = values


@pytest.fixture
def asked(tiny_corpus, tiny_config, tmp_path, monkeypatch):
    """What a run is asked for, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    return {
        "data": tiny_corpus,
        "config": tiny_config,
        "exports": "models",
        "split": {"file": str(tiny_corpus / "split.csv")},
    }


@pytest.fixture
def trainings(monkeypatch):
    """Epochs that each training of this process has begun after."""
    begun, train = [], training.train

    def counted(config, sources, classes, folder, *rest):
        begun.append(training.TrainingState.load(folder).epoch)
        return train(config, sources, classes, folder, *rest)

    monkeypatch.setattr(training, "train", counted)
    return begun


def test_a_run_is_completed_once_and_in_silence(asked, trainings, capsys):
    run = Run.create("runs/mine", **asked)
    assert not run.folder.exists()  # Its songs come first.
    result = run.complete()
    again = Run.create("runs/mine", **asked).complete()
    assert capsys.readouterr() == ("", "")
    assert again == result
    assert trainings == [0]
    assert versions.versions("models/mine") == [1]
    assert result.export == pathlib.Path("models/mine/1")
    assert result.songs == {"train": 6, "validation": 6, "test": 6}
    assert result.scores["test"]["song"]["count"] == 6
    assert result.told["best_epoch"] == 2
    assert result.told["gallery"]["test"]["songs"] == 6
    assert set(result.evaluations) == {"validation", "test"}
    assert again.evaluations == {}
    # What is heard of somebody else is unknown: the export has a gallery.
    told = files.read_json(result.export / versions.METADATA)["gallery"]
    assert told["threshold"] == result.told["gallery"]["threshold"]


def test_a_killed_run_goes_on_where_it_was(asked, trainings, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(training, "StopOnDivergence", lambda: FailAt(2))
        with pytest.raises(PowerFailure):
            Run.create("runs/mine", **asked).complete()
    run, watcher = Run.create("runs/mine", **asked), Watcher()
    assert training.TrainingState.load(run.checkpoints).epoch == 1
    result = run.complete(observer=watcher)
    assert trainings == [0, 1]
    assert "resuming after epoch 1" in watcher.lines
    assert watcher.seen["corpus"]["songs"] == 18
    assert watcher.seen["parts"]["train"]["clips"] == 12
    assert watcher.seen["train"]["epochs"] == 2
    assert watcher.seen["evaluate"] == result.scores
    assert watcher.seen["export"] == {"folder": result.export}


def test_other_settings_are_another_run(asked, trainings):
    run = Run.create("runs/mine", **asked)
    run.save()
    assert Run.create("runs/mine", **asked).config == run.config
    said = r"runs/mine is a run with other settings \(train.epochs 2, not 9\)"
    with pytest.raises(UserError, match=said):
        Run.create("runs/mine", **asked, train={"epochs": 9})
    with pytest.raises(UserError, match=r"other settings \(data.data .*, not "):
        Run.create("runs/mine", **{**asked, "data": "elsewhere"})
    with pytest.raises(UserError, match="exclude each other"):
        Run.create("runs/mine", **asked, preset="demo")
    with pytest.raises(UserError, match="exclude each other"):
        Run.create("runs/mine", **asked, store="features")
    assert trainings == []


def test_some_steps_and_songs_that_cannot_be_used(asked, trainings, tmp_path):
    with pytest.raises(ValueError, match="unknown steps .'bake'.; these are train, "):
        Run.create("runs/mine", **asked).complete(["bake"])
    (tmp_path / "empty").mkdir()
    nothing = Run.create("runs/nothing", **{**asked, "data": "empty"})
    with pytest.raises(UserError, match="no songs found"):
        nothing.complete()
    assert not nothing.folder.exists()
    result = Run.create("runs/mine", **asked).complete(["train", "calibrate"])
    assert (result.export, result.scores) == (None, {})
    assert set(result.told) == {"best_epoch", "temperature", "parameters"}
    assert trainings == [0]


def test_without_data_it_is_the_built_in_corpus(monkeypatch, tmp_path, tiny_corpus):
    from lca_keras.corpora import synthesis

    monkeypatch.setattr(synthesis, "write_built_in", lambda progress: tiny_corpus)
    run = Run.create(tmp_path / "mine", train={"seed": 3})
    assert run.source.data == str(tiny_corpus / "manifest.csv")
    assert run.config.split.file == str(tiny_corpus / "split.csv")
    assert (run.config.features.source, run.config.augment.kinds) == (
        "stems",
        ("remix",),
    )
    assert (run.config.train.seed, run.config.train.clip_seconds) == (3, 3)


def test_the_package_alone_is_light():
    heavy = {"numpy", "keras", "tensorflow", "yaml", "librosa"}
    program = f"import sys, lca_keras; print(sorted({heavy} & set(sys.modules)))"
    command = [sys.executable, "-c", program]
    assert subprocess.check_output(command, text=True) == "[]\n"


@pytest.mark.skipif(shutil.which("git") is None, reason="needs Git")
def test_the_commit_is_that_of_this_code(tmp_path, monkeypatch):
    """Not that of a repository around the folder where it is installed."""
    monkeypatch.setattr(records, "__file__", str(tmp_path / "records.py"))
    (tmp_path / "records.py").touch()
    git = ["git", "-C", str(tmp_path), "-c", "user.name=x", "-c", "user.email=x@x"]
    subprocess.run([*git, "init", "-q"], check=True)
    commit = ["commit", "-q", "--allow-empty", "-m", "x"]
    subprocess.run([*git, *commit], check=True)
    assert records.environment(Config())["commit"] is None
    subprocess.run([*git, "add", "records.py"], check=True)
    head = subprocess.check_output([*git, "rev-parse", "HEAD"], text=True).strip()
    assert records.environment(Config())["commit"] == head
