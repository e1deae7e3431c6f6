"""The commands as a user types them: what they print, write and refuse."""

import csv
import dataclasses
import functools
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import types

import keras
import matplotlib.pyplot as plt
import numpy as np
import pytest
import soundfile

from lca_keras import evaluate, explain, fit, predict
from lca_keras.__main__ import COMMANDS, main
from lca_keras.base import files
from lca_keras.base.config import Config
from lca_keras.base.errors import UserError
from lca_keras.base.sections import SplitConfig, TrainConfig
from lca_keras.data.corpus import (
    DataSource,
    clip_sources,
    divide,
    prepare,
    store_folder,
)
from lca_keras.explanation.explainer import Explainer
from lca_keras.export import main as export_command
from lca_keras.exports import labels, versions
from lca_keras.inference.identification import Identifier
from lca_keras.terminal import resolving
from lca_keras.workflow import advice, judgement, training
from lca_keras.workflow.course import Course
from lca_keras.workflow.run import Run
from tests.audio import signals
from tests.audio.signals import music

TINY_OPTIONS = ["--runs", "runs", "--exports", "models", "--features", "features"]


@pytest.fixture(scope="module")
def finished(tiny_corpus, tiny_config, tmp_path_factory):
    """A folder with a finished run `runs/first try` and its export."""
    folder = tmp_path_factory.mktemp("work")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        tiny_config.save(folder / "tiny.yaml")
        split = ["--split-file", str(tiny_corpus / "split.csv")]
        arguments = ["--data", str(tiny_corpus), "--config", "tiny.yaml", *split]
        assert fit.main([*arguments, "--name", "first try", *TINY_OPTIONS]) == 0
    return folder


@pytest.fixture(scope="module")
def remixed(finished, tiny_corpus):
    """The same folder with a run that was trained on stems, `runs/remixed`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(finished)
        arguments = ["--data", str(tiny_corpus / "manifest.csv")]
        arguments += ["--split-file", str(tiny_corpus / "split.csv")]
        arguments += [
            "--config",
            "tiny.yaml",
            "--source",
            "stems",
            "--augment",
            "remix",
        ]
        arguments += ["--effect", "product", "--detach-counterfactual"]
        assert fit.main([*arguments, "--name", "remixed", *TINY_OPTIONS]) == 0
    return finished


@pytest.fixture
def workplace(finished, monkeypatch):
    monkeypatch.chdir(finished)
    return finished


HEAVY = {"tensorflow", "keras", "keras_tuner", "librosa", "matplotlib", "sklearn"}
HEAVY |= {"scipy", "torch", "apache_beam"}


@pytest.mark.parametrize("module", [module for module, _ in COMMANDS.values()])
def test_help_needs_nothing_heavy(module):
    program = (
        f"import sys; from {module} import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        f"print(sorted({HEAVY} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert "usage: python -m " + module.removesuffix(".__main__") in done.stdout
    assert done.stdout.endswith("[]\n")


# === fit ===


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("lca-keras ", set(COMMANDS)),
        ("lca-keras pre", {"predict"}),
        ("lca-keras fit --clip", {"--clip-seconds", "--clip-overlap"}),
        ("lca-keras fit --preset demo --method l", {"lca"}),
        ("lca-keras extract --me", {"--melody"}),
    ],
)
def test_a_shell_is_told_how_a_line_may_go_on(line, expected):
    """The protocol of argcomplete: a line in the environment, answers on stream 8."""
    environment = {
        "_ARGCOMPLETE": "1",
        "_ARGCOMPLETE_IFS": "\n",
        "_ARGCOMPLETE_SHELL": "fish",
        "COMP_LINE": line,
        "COMP_POINT": str(len(line)),
    }
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m lca_keras 8>&1 9>/dev/null 1>/dev/null"],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    found = {word.split("\t")[0].strip() for word in done.stdout.splitlines()}
    assert found - {"--help", "-h"} == expected


def test_lca_keras_names_its_commands(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["lca-keras", "prdict"])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert "choose from fit, predict" in capsys.readouterr().err.replace("'", "")


def test_run_folder_is_complete(workplace):
    run = workplace / "runs" / "first try"
    for name in (
        "config.yaml",
        "environment.json",
        "split.csv",
        "history.csv",
        "metrics.json",
        "model.keras",
        "predictions_test_frame.csv",
        "predictions_test_song.csv",
        "confusion_test.png",
        "artists_test.txt",
        "checkpoints/state.json",
    ):
        assert (run / name).stat().st_size > 0, name
    from tensorboard.backend.event_processing import event_accumulator

    log = event_accumulator.EventAccumulator(str(run / "tensorboard")).Reload()
    drawn = log.Tags()["images"] + log.Tags()["tensors"]
    assert {"mel_spectrogram", "class_activation"} <= set(drawn)
    assert not [p for p in run.rglob("*") if "tmp" in p.name]
    config = Config.load(run / "config.yaml")
    assert config.train.epochs == 2
    environment = files.read_json(run / "environment.json")
    assert environment["packages"]["keras"] == keras.__version__
    with open(run / "history.csv", newline="") as file:
        history = list(csv.DictReader(file))
    assert [row["weight_effect"] for row in history] == ["0.0", "1.0"]
    assert {"val_f1", "val_cf_f1", "val_att_term", "learning_rate"} <= set(history[0])


def test_metrics_follow_from_the_written_predictions(workplace):
    from sklearn.metrics import f1_score

    run = workplace / "runs" / "first try"
    results = files.read_json(run / "metrics.json")
    for level in ("frame", "song"):
        with open(run / f"predictions_test_{level}.csv", newline="") as file:
            rows = list(csv.DictReader(file))
        truth = [row["artist"] for row in rows]
        predicted = [row["predicted"] for row in rows]
        expected = f1_score(truth, predicted, average="weighted")
        assert results["test"][level]["f1"] == pytest.approx(expected)
        assert results["test"][level]["count"] == len(rows)


def test_fit_refuses_a_run_that_exists(workplace, tiny_corpus, capsys):
    before = files.read_json("runs/first try/metrics.json")
    arguments = ["--data", str(tiny_corpus), "--name", "first try", *TINY_OPTIONS]
    assert fit.main(arguments) == 1
    assert "exists already" in capsys.readouterr().err
    assert files.read_json("runs/first try/metrics.json") == before


@pytest.mark.slow
def test_resuming_a_finished_run_trains_nothing(workplace, capsys):
    state = files.read_json("runs/first try/checkpoints/state.json")
    assert fit.main(["--resume", "runs/first try"]) == 0
    assert "training was finished (2 epochs)" in capsys.readouterr().out
    assert files.read_json("runs/first try/checkpoints/state.json") == state
    shutil.rmtree("models/first try/2")


@pytest.mark.slow
def test_a_finished_run_can_be_trained_on(workplace, capsys):
    shutil.copytree("runs/first try", "runs/longer")
    again = ["--resume", "runs/longer", "--epochs"]
    assert fit.main([*again, "1"]) == 1
    assert "is a run of 2 epochs: --epochs can lengthen" in capsys.readouterr().err
    assert fit.main([*again, "3"]) == 0
    out = capsys.readouterr().out
    assert "resuming after epoch 2" in out
    assert "epoch 3/3" in out
    assert Run.load("runs/longer").config.train.epochs == 3
    assert len(files.read_csv("runs/longer/history.csv")) == 3
    assert pathlib.Path("models/longer/1/saved_model.pb").exists()
    picture = pathlib.Path("runs/longer/training.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert picture != pathlib.Path("runs/first try/training.png").read_bytes()


def test_one_way_to_divide_takes_the_place_of_another(tiny_corpus, tiny_config):
    def split_of(*arguments):
        args = fit.parse_args(["--data", str(tiny_corpus), *arguments])
        config = tiny_config.replace(split={"file": "x.csv", "kind": "song"})
        return resolving.resolve_data(args, config)[0].split

    assert split_of() == SplitConfig(kind="song", file="x.csv")
    assert split_of("--fold", "2/5") == SplitConfig(kind="song", fold=2, folds=5)
    shares = SplitConfig(kind="album", test_share=0.2)
    assert split_of("--split", "album", "--test-share", "0.2") == shares
    assert split_of("--split-file", "y") == SplitConfig(kind="song", file="y")


def test_the_exported_epoch_is_the_best_after_the_warm_up(workplace):
    run_folder = workplace / "runs" / "first try"
    state = files.read_json(run_folder / "checkpoints/state.json")
    results = files.read_json(run_folder / "metrics.json")
    assert results["best_epoch"] == state["best_epoch"] == 2  # One is warm-up.
    best = keras.saving.load_model(run_folder / "checkpoints" / state["best"])
    kept = keras.saving.load_model(run_folder / "model.keras")
    for one, other in zip(best.get_weights(), kept.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    logs = state["history"][1]
    frame, song = (results["validation"][level]["f1"] for level in ("frame", "song"))
    assert (logs["val_f1"], logs["val_song_f1"]) == pytest.approx((frame, song))


@pytest.mark.slow
def test_steps_can_be_called_one_by_one(workplace, tiny_corpus):
    """Evaluation and export of a run by another program, values in and out."""
    job = Run.load("runs/first try")
    model, artists = job.load_model()
    songs = prepare(job.source, job.config)
    division = divide(job.config, songs, job.folder)
    assert division.artists == artists
    sources = clip_sources(songs, division.part_of, artists, job.config, ["test"])
    found = judgement.evaluate("elsewhere", model, sources, artists)
    before = files.read_json("runs/first try/metrics.json")
    assert found["test"].scores == before["test"]
    assert found["test"].main.votes.shape == (6,)
    shutil.copytree("runs/first try", "runs/copy")
    for version in ("1", "2", "3"):
        (workplace / "other models" / "copy" / version).mkdir(parents=True)
        # Each for long.
        os.utime(workplace / "other models" / "copy" / version, (0, 0))
    labels.assign(workplace / "other models" / "copy", "stable", 1)
    folder = workplace / "runs" / "copy"
    job = dataclasses.replace(job, folder=folder, exports="other models")
    Course(job, songs, division, sources, keep=2).export()
    exported = pathlib.Path("other models/copy/4")
    assert versions.versions(exported.parent) == [1, 3, 4], "1 is what servers load"
    assert (exported / "saved_model.pb").exists()


def test_a_run_belongs_to_one_process(workplace, capsys):
    with files.lock(workplace / "runs" / "first try" / ".lock"):
        assert fit.main(["--resume", "runs/first try"]) == 1
    assert "another process is at work" in capsys.readouterr().err


def test_an_interrupted_run_is_continued_as_it_was_spread(
    workplace, monkeypatch, capsys
):
    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(Run, "complete", interrupt)
    again = ["--resume", "runs/first try"]
    assert fit.main([*again, "--strategy", "mirrored"]) == 130
    said = "lca_keras.fit --resume 'runs/first try'"
    assert f"{said} --strategy mirrored\n" in capsys.readouterr().err
    assert fit.main(again) == 130
    assert f"{said}\n" in capsys.readouterr().err


@pytest.mark.slow
def test_a_resumed_run_equals_an_uninterrupted_one(
    tiny_corpus, tiny_config, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    config = tiny_config.replace(
        train={"epochs": 3, "batch_size": 4, "deterministic": True},
        split={"file": str(tiny_corpus / "split.csv")},
        features={"source": "stems", "separator": "umxl"},
        augment={"kinds": ("remix", "specaugment")},
    )
    config.save("c.yaml")
    data = ["--data", str(tiny_corpus / "manifest.csv")]
    start = [*data, "--config", "c.yaml", *TINY_OPTIONS]
    weights = []
    for name, stops in (("whole", []), ("stopped", [5, 5])):
        commands = [[*start, "--name", name], *[["--resume", f"runs/{name}"]] * 2]
        for command, stop in zip(commands, stops, strict=False):
            # Power failure in the middle of the second and of the third epoch.
            with monkeypatch.context() as patch:
                patch.setattr(
                    training, "StopOnDivergence", lambda stop=stop: FailAt(stop)
                )
                with pytest.raises(PowerFailure):
                    fit.main(command)
        assert fit.main(commands[len(stops)]) == 0
        folder = tmp_path / "runs" / name
        state = files.read_json(folder / "checkpoints" / "state.json")
        model = keras.saving.load_model(folder / "checkpoints" / state["last"])
        weights.append((model.get_weights(), state["history"]))
    assert weights[0][1] == weights[1][1]
    for whole, stopped in zip(weights[0][0], weights[1][0], strict=True):
        np.testing.assert_array_equal(whole, stopped)


class PowerFailure(Exception):
    pass


class FailAt(keras.callbacks.Callback):
    def __init__(self, step):
        super().__init__()
        self.step, self.seen = step, 0

    def on_train_batch_end(self, batch, logs=None):
        self.seen += 1
        if self.seen == self.step:
            raise PowerFailure


def test_divergence_stops_with_a_message_and_keeps_the_checkpoint(
    tiny_corpus, tiny_config, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    config = tiny_config.replace(train={"epochs": 2, "warmup_epochs": 1})
    config.save("c.yaml")

    class Poison(training.WarmUp):
        def on_epoch_begin(self, epoch, logs=None):
            super().on_epoch_begin(epoch, logs)
            if epoch == 1:
                bias = self.model.backbone.classifier.bias
                bias.assign(np.full(bias.shape, np.nan))

    monkeypatch.setattr(training, "WarmUp", Poison)
    start = ["--data", str(tiny_corpus), "--config", "c.yaml", *TINY_OPTIONS]
    assert fit.main([*start, "--name", "wild"]) == 1
    assert "The loss became nan" in capsys.readouterr().err
    state = files.read_json("runs/wild/checkpoints/state.json")
    assert state["epoch"] == 1
    model = keras.saving.load_model(f"runs/wild/checkpoints/{state['last']}")
    assert all(np.isfinite(weight).all() for weight in model.get_weights())


def make_corpus(folder, artists=2, albums=3, seconds=4.0):
    """A corpus of tones, quicker than singing."""
    for artist in range(artists):
        for album in range(albums):
            path = folder / f"artist {artist}" / f"album {album}" / "song.wav"
            path.parent.mkdir(parents=True)
            samples = music(16000, seconds, seed=10 * artist + album)
            soundfile.write(path, samples, 16000)
    return folder


def refuse(arguments, capsys):
    """Runs fit on something unusable; returns the one line that it printed."""
    if "--config" not in arguments:
        arguments = [*arguments, "--clip-seconds", "3"]
    assert fit.main([*arguments, *TINY_OPTIONS]) == 1
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    (line,) = [x for x in captured.err.splitlines() if x.startswith("error:")]
    return line


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_missing_and_empty_folder(elsewhere, capsys):
    assert "no such folder" in refuse(["--data", "nowhere"], capsys)
    (elsewhere / "empty").mkdir()
    assert "no songs found" in refuse(["--data", "empty"], capsys)


def test_one_artist_and_too_few_albums(elsewhere, capsys):
    make_corpus(elsewhere / "one", artists=1)
    assert "at least two artist" in refuse(["--data", "one"], capsys)
    make_corpus(elsewhere / "few", albums=2)
    line = refuse(["--data", "few", "--name", "b"], capsys)
    assert "artist 0 (2), artist 1 (2)" in line
    assert "--split song" in line


@pytest.mark.slow
def test_unusable_files_are_named_counted_and_skipped(
    elsewhere, tiny_config, tiny_corpus, capsys
):
    corpus = elsewhere / "my 'songs' 🎵"
    shutil.copytree(tiny_corpus, corpus, ignore=shutil.ignore_patterns("stems"))
    album = corpus / "Ada Quill" / "Album 01"
    (album / "zero.mp3").write_bytes(b"")
    (album / "text.mp3").write_text("these are lyrics, not music\n" * 200)
    soundfile.write(album / "silence.wav", np.zeros(99999), 16000)
    soundfile.write(album / "short.wav", music(16000, 0.5), 16000)
    whole = (album / "Song 01.flac").read_bytes()
    (album / "truncated.flac").write_bytes(whole[: len(whole) // 2])
    soundfile.write(album / "wide.wav", music(192000, 4, channels=8, seed=5), 192000)
    tiny_config.replace(train={"epochs": 1}).save("c.yaml")
    split = ["--split-file", str(write_split(corpus))]
    arguments = ["--data", str(corpus), "--config", "c.yaml", *split]
    line = refuse([*arguments, "--name", "a b", "--strict"], capsys)
    assert "--strict: 4 files cannot be used, 1 are doubtful" in line
    assert fit.main([*arguments, "--name", "a b", *TINY_OPTIONS]) == 0
    out = capsys.readouterr().out
    assert "20 songs ready" in out
    assert "4 skipped" in out
    assert "warm-up (1 epochs) outlasts training (1)" in out
    assert "4 lines of" in out  # The split file has parts for unusable songs too.
    for name, reason in (
        ("zero.mp3", "empty file"),
        ("text.mp3", "no recording in a format that FFmpeg decodes"),
        ("silence.wav", "silent"),
        ("short.wav", "too short: 0.500 s"),
        ("truncated.flac", "cut off or damaged"),
    ):
        (line,) = [x for x in out.splitlines() if name in x]
        assert reason in line


def write_split(corpus):
    """A split file with a part for every song of the tree, by album."""
    parts = ("train", "validation", "test")
    path = corpus.parent / "split.csv"
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["artist", "album", "song", "part"])
        for song in sorted(corpus.glob("*/*/*.*")):
            part = parts[int(song.parent.name[-1]) - 1]
            writer.writerow([song.parts[-3], song.parts[-2], song.stem, part])
    return path


def test_same_recording_in_two_parts(elsewhere, capsys):
    corpus = make_corpus(elsewhere / "c")
    songs = sorted(corpus.glob("artist 0/*/song.wav"))
    for song in songs[1:]:
        shutil.copy(songs[0], song)
    assert "the same recording is in the parts" in refuse(["--data", "c"], capsys)


def test_configs_and_options_that_cannot_be(elsewhere, capsys):
    pathlib.Path("old.yaml").write_text("version: 0\n")
    assert "version 0 is not 2" in refuse(["--config", "old.yaml"], capsys)
    crnn = ["--model", "crnn", "--method", "lca"]
    assert "no attention" in refuse(["--data", "x", *crnn], capsys)
    assert "train.epochs: expected int, at least 1" in refuse(
        ["--data", "x", "--epochs", "0"], capsys
    )
    for name in ("../up", "", ".hidden"):
        assert "--name" in refuse(["--data", "x", "--name", name], capsys)
    pathlib.Path("a file").write_text("")
    assert fit.main(["--data", "x", "--exports", "a file"]) == 1
    assert "--exports a file: File exists" in capsys.readouterr().err
    assert fit.main(["--resume", "nowhere"]) == 1
    assert "not a run folder" in capsys.readouterr().err
    assert fit.main(["--resume", "nowhere", "--seed", "5"]) == 1
    assert "leave out --seed" in capsys.readouterr().err
    data = ["--data", "x"]
    for fold, said in {
        "2": "not of the form 2/5",
        "1/2": "at least 3 folds",
        "0/5": "the fold counts from 1",
        "6/5": "no fold 6 of 5",
    }.items():
        assert said in refuse([*data, "--fold", fold], capsys)
    both = ["--fold", "1/5", "--test-share", "0.2"]
    assert "exclude each other" in refuse([*data, *both], capsys)
    assert "leave something" in refuse([*data, "--test-share", "1"], capsys)
    assert "clip_overlap" in refuse([*data, "--clip-overlap", "1"], capsys)
    assert not list(elsewhere.glob("runs/*"))  # Nothing that was refused is left.


def test_damaged_feature_store(elsewhere, tiny_config, capsys):
    corpus = make_corpus(elsewhere / "c", artists=2, albums=3)
    config = tiny_config.replace(train={"epochs": 1})
    source = DataSource(data=str(corpus))
    prepare(source, config)
    (store,) = (elsewhere / "features").iterdir()
    (shard,) = store.glob("songs-*")
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-500])
    _, note = prepare(source, config).notes
    assert f"{shard.name} was missing or truncated: computed its songs again" in note
    assert shard.read_bytes() == whole
    # Damage that keeps the size is found by TFRecord's checksums.
    shard.write_bytes(whole[:-500] + bytes(400) + whole[-100:])
    config.save("c.yaml")
    line = refuse(["--data", "c", "--config", "c.yaml", "--name", "x"], capsys)
    assert str(shard.name) in line
    (store / "index.json").write_text("[]")
    assert "index.json is damaged" in refuse(["--data", "c", "--name", "y"], capsys)


# === predict ===


def test_predict_runs_from_the_export_alone(workplace, tiny_corpus, tmp_path, capsys):
    shutil.copytree("models/first try", tmp_path / "m")
    song = tmp_path / "my 'best' song 🎵.mp3"
    samples, _ = soundfile.read(next(tiny_corpus.glob("*/*/*.flac")))
    soundfile.write(song, np.stack([samples, samples], axis=1), 16000)
    picture = tmp_path / "vote.png"
    arguments = ["--model", str(tmp_path / "m"), str(song), "--plot", str(picture)]
    assert predict.main([*arguments, "--json"]) == 0
    (result,) = json.loads(capsys.readouterr().out)
    assert result["song"] == str(song)
    assert sum(result["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    assert sum(result["votes"].values()) == len(result["clips"]) == 2
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert predict.main([*arguments[:3], "--top", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{song}: {result['singer']}"
    assert len(lines) == 3


def test_predict_agrees_with_the_evaluation_of_the_run(workplace, tiny_corpus, capsys):
    with open("runs/first try/predictions_test_song.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    songs = [
        str(tiny_corpus / row["artist"] / row["album"] / f"{row['song']}.flac")
        for row in rows
    ]
    command = ["--model", "models/first try", "--json", "--closed-set", *songs]
    assert predict.main(command) == 0
    results = json.loads(capsys.readouterr().out)
    for row, result in zip(rows, results, strict=True):
        assert result["singer"] == row["predicted"]
        probability = result["probabilities"][result["singer"]]
        # The store keeps features in float16.
        assert probability == pytest.approx(float(row["probability"]), abs=5e-3)


def test_predict_names_nobody_without_confidence(workplace, tiny_corpus, capsys):
    song = str(next(tiny_corpus.glob("*/*/*.flac")))
    arguments = ["--model", "models/first try", song, "--closed-set"]
    arguments.append("--min-confidence")
    answer = ["--out", "unsure.csv", "--plot", "unsure.png"]
    assert predict.main([*arguments, "1", "--overlap", "0.5"]) == 0
    assert capsys.readouterr().out.startswith(f"{song}: not sure\n")
    assert predict.main([*arguments, "1", "--overlap", "0.5", *answer]) == 0
    assert "1 songs, 1 not sure, 0 failed" in capsys.readouterr().err
    (row,) = files.read_csv("unsure.csv")
    assert (row["singer"], row["error"]) == ("", "")
    assert row["status"] == "not sure"
    assert row["notes"].startswith("the likeliest is ")
    assert row["clips"] == "3"  # 7 s at 0, 1.5 and 3 s.
    assert 0 < float(row["probability"]) < 1
    assert predict.main([*arguments, "2"]) == 1
    assert "--min-confidence is in [0, 1]" in capsys.readouterr().err


def test_predict_reports_bad_files_and_goes_on(workplace, tiny_corpus, capsys):
    good = str(next(tiny_corpus.glob("*/*/*.flac")))
    soundfile.write("short.wav", music(16000, 0.5), 16000)
    pathlib.Path("lyrics.mp3").write_text("la la la " * 99)
    deep = pathlib.Path("folder", "in", "folder")
    deep.mkdir(parents=True)
    shutil.copy(good, deep / "x.flac")
    pathlib.Path("empty").mkdir()
    songs = ["nowhere.mp3", "short.wav", "lyrics.mp3", good, "folder", "empty"]
    table = ["--out", "answers.csv"]
    assert predict.main(["--model", "models/first try", *songs]) == 1
    assert capsys.readouterr().out.startswith(good)
    assert predict.main(["--model", "models/first try", *songs, *table]) == 1
    captured = capsys.readouterr()
    rows = {row["song"]: row for row in files.read_csv("answers.csv")}
    # In the order in which they were given; folders without songs first.
    assert list(rows) == ["empty", *songs[:4], str(deep / "x.flac")]
    first, second = rows.pop(good), rows.pop(str(deep / "x.flac"))
    wrong = rows.values()
    assert first["singer"] == second["singer"] != ""
    assert first["clips"] == "2"
    assert all(row["error"] and not row["singer"] for row in wrong)
    assert captured.out == ""
    assert "nowhere.mp3: cannot be read: No such file" in captured.err
    assert "short.wav: too short: 0.500 s" in captured.err
    assert "lyrics.mp3: no recording in a format" in captured.err


def test_songs_that_a_model_knows_are_told(workplace, tiny_corpus, tmp_path, capsys):
    """Under their names, and under others by their content."""
    music = tmp_path / "music"
    ignored = shutil.ignore_patterns("stems", "*.csv", "*.json")
    shutil.copytree(tiny_corpus, music, ignore=ignored)
    for path in list(music.glob("*/*")):
        path.rename(path.with_name(f"{path.name} again"))
    new = music / "Ada Quill" / "Live"
    new.mkdir()
    samples = signals.music(16000, seconds=7)
    soundfile.write(new / "x.wav", samples, 16000)
    assert evaluate.main(["--run", "runs/first try", "--data", str(music)]) == 0
    out = capsys.readouterr().out
    assert "the model knows 12 of these 19 songs (6 by train and 6 by valid" in out
    assert "songs of music, by artist:" in out
    # Without its features nothing is known of contents, and that is said.
    job = Run.load("runs/first try")
    store = store_folder(job.source, job.config)
    store.rename(tmp_path / "gone")
    assert evaluate.main(["--run", "runs/first try", "--data", str(music)]) == 0
    out = capsys.readouterr().out
    assert "songs of it are known by their names alone" in out
    assert "the model knows" not in out
    (tmp_path / "gone").rename(store)
    shutil.rmtree("runs/first try/evaluation-music")


def test_what_scores_mean_is_said():
    logs = {"f1": 0.96, "val_f1": 0.44, "val_cf_f1": 0.44}
    state = training.TrainingState(epoch=1, best_epoch=1, history=[logs])
    truth, votes = np.array([0, 0, 1, 1, 2]), np.array([0, 1, 0, 2, 2])
    main = types.SimpleNamespace(song_labels=truth, votes=votes)
    evaluation = types.SimpleNamespace(main=main)
    train = TrainConfig(warmup_epochs=0)
    said = functools.partial(advice.of_scores, state, train, evaluation)
    heart, idle, never = said(["A", "B", "C"])
    assert "0.96 on training clips and 0.44 on validation clips" in heart
    assert "the counterfactual names validation clips as well" in idle
    assert never == "note: no test song of B is named rightly"
    logs |= {"f1": 0.6, "val_cf_f1": 0.3}
    main.votes = truth
    assert list(said(["A", "B", "C"])) == []


def test_a_run_finds_its_music_again(workplace, tiny_corpus, tmp_path, capsys):
    shutil.copytree("runs/first try", "runs/moved")
    moved = tmp_path / "elsewhere"
    moved.symlink_to(tiny_corpus)
    arguments = ["--run", "runs/moved", "--moved-to", str(moved)]
    assert evaluate.main([*arguments, "--out", str(tmp_path / "out")]) == 0
    assert Run.load("runs/moved").source.data == str(moved)
    before = files.read_json("runs/moved/metrics.json")["test"]
    assert files.read_json(tmp_path / "out" / "metrics.json")["test"] == before
    shutil.rmtree("runs/moved")


def test_corpora_of_one_name_do_not_share_a_folder(tmp_path):
    folders = [
        evaluate.own_folder(tmp_path, tmp_path / where / "music")
        for where in ("a", "b", "c", "a", "b")
    ]
    assert folders[0] == tmp_path / "evaluation-music"
    assert folders[3:] == folders[:2]
    assert len(set(folders)) == 3


def test_predict_checks_its_options_first(workplace, capsys):
    arguments = ["--model", "models/first try", "x.wav"]
    assert predict.main([*arguments, "--plot", "no/where.png"]) == 1
    assert "--plot no/where.png: no such folder" in capsys.readouterr().err
    assert predict.main([*arguments, "--top", "0"]) == 1
    assert "--top must be at least 1" in capsys.readouterr().err
    assert predict.main(["--model", "runs/first try", "x.wav"]) == 1
    # Absolute, once the run has been resumed.
    assert re.search(
        "is a run; its exported model is (/.*/)?models/first try/",
        capsys.readouterr().err,
    )


def test_predict_without_a_model(elsewhere, capsys):
    assert predict.main(["--model", "models/none", "a.wav"]) == 1
    assert "no exported model" in capsys.readouterr().err
    (elsewhere / "half" / "1").mkdir(parents=True)
    assert predict.main(["--model", "half", "a.wav"]) == 1
    assert "not a whole export" in capsys.readouterr().err


# === evaluate ===


def test_evaluate_repeats_the_scores_of_fit(workplace, capsys):
    before = files.read_json("runs/first try/metrics.json")
    assert evaluate.main(["--run", "runs/first try", "--out", "again"]) == 0
    after = files.read_json("again/metrics.json")
    assert after["test"] == before["test"]
    assert after["validation"] == before["validation"]
    assert "Ada Quill" in capsys.readouterr().out


def test_evaluate_on_another_corpus(workplace, tiny_corpus, capsys):
    other = workplace / "artists"  # A name in `metrics.json`.
    shutil.copytree(tiny_corpus / "Ada Quill", other / "Ada Quill")
    shutil.copytree(tiny_corpus / "Björn Talvik", other / "Somebody Else")
    assert evaluate.main(["--run", "runs/first try", "--data", str(other)]) == 0
    said = capsys.readouterr().out
    assert "6 songs by Somebody Else, whom the model does not know: " in said
    results = files.read_json("runs/first try/evaluation-artists/metrics.json")
    assert results["artists"]["song"]["count"] == 6


# === What it listens to ===


def test_a_run_with_stems_says_what_it_listens_to(remixed, monkeypatch):
    monkeypatch.chdir(remixed)
    folder = remixed / "runs" / "remixed"
    config = Config.load(folder / "config.yaml")
    assert config.augment.kinds == ("remix",)
    assert (config.train.effect, config.train.detach_counterfactual) == (
        "product",
        True,
    )
    results = files.read_json(folder / "metrics.json")
    report = results["voice_report"]
    assert sum(report["shares"].values()) == pytest.approx(1)
    assert report["swaps"] == 2 * 6
    assert set(report["by_artist"]) <= set(results["artists"])
    # The first hearing is the song as it is.
    for level in ("frame", "song"):
        assert report["scores"]["mixture"][level] == results["test"][level]["f1"]
    assert (folder / "voice_report.png").exists()
    with open(folder / "voice_report.csv", encoding="utf-8") as file:
        follows = [row["follows"] for row in csv.DictReader(file)]
    assert {name: follows.count(name) / 12 for name in report["shares"]} == (
        report["shares"]
    )
    card = (remixed / "models" / "remixed" / "1" / "model_card.md").read_text("utf-8")
    first = card.splitlines()[2]
    most = max(report["shares"].values())
    if report["shares"]["voice"] == most > 1 / 3:
        assert first.startswith("It follows the voice: ")
    else:
        assert first.startswith("**Mind what it listens to. It follows ")
    assert "clips augmented by remix" in card
    assert "| its voice alone |" in card


def test_a_model_of_stems_hears_mixtures(remixed, tiny_corpus, monkeypatch, capsys):
    monkeypatch.chdir(remixed)
    song = tiny_corpus / "Ada Quill" / "Album 02" / "Song 01.flac"
    # Without a separator, and there is none.
    command = ["--model", "models/remixed", str(song), "--json", "--closed-set"]
    assert predict.main(command) == 0
    (result,) = json.loads(capsys.readouterr().out)
    rows = {}
    for part in ("validation", "test"):
        path = f"runs/remixed/predictions_{part}_song.csv"
        with open(path, encoding="utf-8") as file:
            for row in csv.DictReader(file):
                rows[row["artist"], row["album"], row["song"]] = row
    row = rows["Ada Quill", "Album 02", "Song 01"]
    assert result["singer"] == row["predicted"]
    best = result["probabilities"][result["singer"]]
    assert best == pytest.approx(float(row["probability"]), abs=2e-3)
    # Nor does it need stems to be evaluated on other songs.
    other = remixed / "no stems"
    shutil.copytree(tiny_corpus / "Ada Quill", other / "Ada Quill")
    assert evaluate.main(["--run", "runs/remixed", "--data", str(other)]) == 0


def test_voice_reports_of_finished_runs(
    remixed, tiny_corpus, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(remixed)
    before = files.read_json("runs/remixed/metrics.json")["voice_report"]
    again = ["--out", str(tmp_path / "again"), "--voice-report"]
    assert evaluate.main(["--run", "runs/remixed", *again]) == 0
    assert "What it listens to (6 songs), F1" in capsys.readouterr().out
    assert files.read_json(tmp_path / "again/metrics.json")["voice_report"] == before
    # A run that never saw stems, on a corpus that has them.
    manifest = str(tiny_corpus / "manifest.csv")
    other = ["--data", manifest, "--out", str(tmp_path / "other"), "--voice-report"]
    assert evaluate.main(["--run", "runs/first try", *other]) == 0
    report = files.read_json(tmp_path / "other/metrics.json")
    assert report["voice_report"]["swaps"] == 2 * 18
    scores = report["voice_report"]["scores"]["mixture"]
    assert scores["song"] == report["manifest.csv"]["song"]["f1"]


@pytest.mark.slow
def test_a_report_that_fails_costs_no_model(remixed, monkeypatch, capsys):
    monkeypatch.chdir(remixed)

    def refuse(*arguments):
        raise UserError("a voice report needs songs of at least two artists")

    monkeypatch.setattr(judgement, "voice_report", refuse)
    before = len(list((remixed / "models" / "remixed").iterdir()))
    assert fit.main(["--resume", "runs/remixed"]) == 0
    assert "no voice report: a voice report needs" in capsys.readouterr().out
    assert len(list((remixed / "models" / "remixed").iterdir())) == before + 1


@pytest.mark.slow
def test_stems_at_hand_are_recommended(workplace, tiny_corpus, capsys):
    manifest = str(tiny_corpus / "manifest.csv")
    shutil.copytree("runs/first try", "runs/at hand")
    assert fit.main(["--resume", "runs/at hand", "--data", manifest]) == 0
    out = capsys.readouterr().out
    assert "note: these songs have stems; --source stems --augment remix" in out
    assert "What it listens to (6 songs)" in out  # The files are enough for that.


def test_remixing_needs_stems(elsewhere, tiny_corpus, capsys):
    make_corpus(elsewhere / "corpus")
    corpus = ["--data", "corpus", "--augment", "remix"]
    assert "use --source stems" in refuse(corpus, capsys)
    preset = ["--data", "corpus", "--preset", "voice", "--source", "mixture"]
    assert "use --source stems" in refuse(preset, capsys)
    share = [*corpus, "--source", "stems", "--remix-share", "1.5"]
    assert (
        "remix_share: expected finite float, at least 0 and at most 1, received 1.5"
        in refuse(share, capsys)
    )
    # One artist alone has nobody to lend a band, and nothing to be told from.
    with open(tiny_corpus / "split.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        if row["artist"] != "Ada Quill" and row["part"] == "train":
            row["part"] = "validation"
    files.write_csv("split.csv", list(rows[0]), rows)
    manifest = [
        "--data",
        str(tiny_corpus / "manifest.csv"),
        "--split-file",
        "split.csv",
    ]
    one = [*manifest, "--source", "stems", "--augment", "remix"]
    line = refuse(one, capsys)
    assert "No training song of Björn Talvik, Chiara d'Onda" in line
    assert not list(elsewhere.glob("runs/*"))


def test_missing_tensorflow_io_is_said_at_once(elsewhere, monkeypatch, capsys):
    from lca_keras.data import augment

    make_corpus(elsewhere / "corpus")
    monkeypatch.setattr(augment.importlib.util, "find_spec", lambda name: None)
    line = refuse(["--data", "corpus", "--augment", "specaugment"], capsys)
    assert "pip install 'lca-keras[specaugment]'" in line
    assert not (elsewhere / "features").exists()


def test_runs_of_earlier_versions_are_named(elsewhere, capsys):
    pathlib.Path("runs/old").mkdir(parents=True)
    files.write_json("runs/old/job.json", {"data": "corpus", "name": "old"})
    for command in (evaluate.main, fit.main):
        option = "--run" if command is evaluate.main else "--resume"
        assert command([option, "runs/old"]) == 1
        assert "of an earlier version; begin a new run" in capsys.readouterr().err


def test_evaluate_refuses_other_folders(elsewhere, capsys):
    assert evaluate.main(["--run", "nowhere"]) == 1
    assert "not a run folder" in capsys.readouterr().err


# === TFLite files ===


@pytest.mark.slow
def test_files_for_phones_come_with_what_they_are_worth(
    workplace, tiny_corpus, tmp_path, capsys
):
    run = "runs/first try"
    out = tmp_path / "for phones"
    forms = ["--tflite", "float32", "int8-dynamic", "--out", str(out)]
    assert export_command(["--run", run, *forms]) == 0
    printed = capsys.readouterr().out
    rows = files.read_json(out / "card.json")
    assert [row["file"] for row in rows] == [
        "SavedModel",
        "model-float32.tflite",
        "model-float32-waveform.tflite",
        "model-int8-dynamic.tflite",
        "model-int8-dynamic-waveform.tflite",
    ]
    first, plain, waveform, small, _ = rows
    scores = files.read_json(f"{run}/metrics.json")["validation"]
    for row in (first, plain):
        assert row["clip_f1"] == pytest.approx(scores["frame"]["f1"], abs=1e-6)
        assert row["song_f1"] == pytest.approx(scores["song"]["f1"], abs=1e-6)
    assert plain["largest_difference"] < 1e-4
    assert 0.5 < waveform["same_clips"] <= 1
    assert small["bytes"] < plain["bytes"]
    assert small["bytes"] == (out / small["file"]).stat().st_size
    assert f"| {plain['file']} | {plain['bytes'] / 1000:.0f} |" in printed
    song = str(next(tiny_corpus.glob("*/*/*.flac")))
    assert predict.main(["--model", str(out / plain["file"]), song, "--json"]) == 0
    [said] = json.loads(capsys.readouterr().out)
    assert said["singer"] == Identifier("models/first try").identify(song).singer
    assert predict.main(["--model", str(out / waveform["file"]), song]) == 1
    assert "takes waveforms, not what the front end makes" in capsys.readouterr().err
    for wrong in (["--run", run], ["--run", run, "--tflite", "int4"], []):
        with pytest.raises(SystemExit):
            export_command(wrong)
    assert export_command(["--run", "nowhere", *forms]) == 1
    assert "nowhere" in capsys.readouterr().err


# === Explanations ===

SONG = "{0}/Ada Quill/Album 01/Song 01.flac"


def explained(*options):
    """Exit code of `explain` with a run and a song."""
    return explain.main(["--model", *map(str, options)])


def test_a_run_and_its_export_explain_alike(workplace, tiny_corpus, capsys):
    song, run = SONG.format(tiny_corpus), "runs/first try"
    from_run = Run.load(run).explainer().explain(song)
    from_export = Explainer.of_export("models/first try").explain(song)
    said = Identifier("models/first try").identify(song)
    assert from_run.singer == from_export.singer == said.singer
    clip = np.array([list(each["probabilities"].values()) for each in said.clips])
    order = [list(said.clips[0]["probabilities"]).index(a) for a in from_run.artists]
    np.testing.assert_allclose(from_run.probabilities, clip[:, order], atol=1e-4)
    assert from_run.starts.tolist() == pytest.approx([c["start"] for c in said.clips])
    [ours], [theirs] = from_run.maps.values(), from_export.maps.values()
    np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-3)
    assert np.isnan(ours[:, -1]).all()  # What is left at the end is no clip.
    assert np.nanmean(ours) == pytest.approx(1, abs=1e-3)
    assert from_run.counterfactual.shape == from_run.mel.shape
    assert from_run.attention.shape == from_run.cf_attention.shape == (2, 2)
    assert from_export.attention is None
    assert from_run.voice_shares == {}  # A folder alone has no stems.
    assert from_run.notes == [*from_export.notes, "the model was trained on this song"]


def test_explanations_are_drawn_and_told(workplace, tiny_corpus, capsys):
    song = SONG.format(tiny_corpus)
    stems = pathlib.Path(song).parents[2] / "stems/Ada Quill/Album 01/Song 01"
    options = ["--artist", "Björn Talvik", "--vocals", stems / "vocals.flac"]
    options += ["--out", "why.png", "--html", "why's page.html"]
    assert explained("runs/first try", song, *options) == 0
    printed = capsys.readouterr().out
    assert f"{song}: " in printed
    assert "of it on cells that the voice dominates" in printed
    assert plt.imread("why.png").shape[2] == 4
    page = (workplace / "why's page.html").read_text(encoding="utf-8")
    assert "what speaks for Björn Talvik" in page
    assert page.count("data:audio/mpeg;base64,") == 1
    assert "http" not in re.sub("data:[^\"']*", "", page)  # Nothing to be loaded.


def test_what_cannot_be_explained_is_named(workplace, tiny_corpus, capsys):
    song, run = SONG.format(tiny_corpus), "runs/first try"
    for given, message in (
        ([run, song], "say where to: --out FILE.png"),
        ([run, song, "--out", "nowhere/a.png"], "no such folder"),
        (
            [run, song, "--out", "a.png", "--artist", "Bo"],
            "does not know 'Bo'; it knows",
        ),
        ([run, "tiny.yaml", "--out", "a.png"], "tiny.yaml: "),
        (["runs", song, "--out", "a.png"], "neither a run nor an export"),
        ([run, song, "--out", "a.xyz"], "has to end in .png"),
        ([run, song, "--out", "a.png", "--vocals", "tiny.yaml"], "its vocals|vocals"),
    ):
        assert explained(*given) == 1
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert re.search(message, error), error
    assert not (workplace / "a.png").exists()


def test_an_explanation_says_that_the_stems_have_moved(workplace, tiny_corpus, capsys):
    shutil.copytree("runs/first try", "runs/left behind")
    job = files.read_json("runs/left behind/job.json")
    job["data"]["data"] = "gone/manifest.csv"
    files.write_json("runs/left behind/job.json", job)
    song = SONG.format(tiny_corpus)
    assert explained("runs/left behind", song, "--out", "why.png") == 0
    out = capsys.readouterr().out
    assert "so no share of the voice (" in out
    assert "gone/manifest.csv" in out
