"""The whole pipeline: from songs to a pushed model, reused, blocked, killed, mended."""

import csv
import errno
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys

import keras
import numpy as np
import pytest
import soundfile
import tensorflow as tf
import yaml

from lca_keras.base import files
from lca_keras.corpora import synthesis
from lca_keras.exports import integrity, labels, versions
from lca_keras.workflow import training
from lca_keras.workflow.run import Run
from pipelines import run

pytestmark = pytest.mark.slow

# Songs of one loudness and kind: what a training of seconds makes of them is chance.
LENIENT = [
    {"metric": "song_f1", "at_least": 0.0},
    {"metric": "song_f1", "change_at_least": -1.0},
    {"metric": "frame_accuracy", "slice": "artist", "change_at_least": -1.0},
    {"metric": "band_share", "at_most": 1.0},
]
ALL = ["ExampleGen", "StatisticsGen", "ExampleValidator", "Trainer", "Evaluator"]
ALL += ["InfraValidator", "Pusher"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tiny_config):
    """A folder with a corpus `my 'songs'`, and what one call of the pipeline left."""
    folder = tmp_path_factory.mktemp("pipeline")
    corpus = synthesis.SynthesisConfig(artists=3, albums=3, songs=3, seconds=7.0)
    synthesis.write_corpus(corpus, folder / "my 'songs'", stems=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write_config("c.yaml", tiny_config)
        assert pipeline("c.yaml") == 0
    return folder


@pytest.fixture
def place(finished, tmp_path, monkeypatch):
    """A copy of it to work in."""
    folder = tmp_path / "place"
    shutil.copytree(finished, folder)
    monkeypatch.chdir(folder)
    return folder


def write_config(path, config, thresholds=LENIENT, seed=0, **settings):
    """A training of seconds on stems, with a section of the pipeline."""
    config = config.replace(
        features={"source": "stems", "separator": "umxl"},
        augment={"kinds": ("remix",)},
        train={"batch_size": 4, "deterministic": True, "seed": seed},
    )
    section = {"pipeline": {"thresholds": thresholds, **settings}}
    content = {**config.to_dict(), **section}
    pathlib.Path(path).write_text(yaml.safe_dump(content, allow_unicode=True))


def pipeline(config, *options, data="my 'songs'/manifest.csv"):
    """Exit code of a call."""
    arguments = ["--data", data, "--config", config, "--name", "m"]
    split = str(pathlib.Path(data).with_name("split.csv"))
    return run.main([*arguments, "--split-file", split, *options])


def stages_of(printed):
    """Dict from stage to `reused` or `run`, from the table."""
    return dict(re.findall(r"^  ([A-Z]\w+) +(reused|run) ", printed, re.MULTILINE))


def shorten(song):
    """Another recording of a song: its end is missing."""
    root = pathlib.Path("my 'songs'")
    for path in [root / f"{song}.flac", *(root / "stems" / song).glob("*.flac")]:
        samples, rate = soundfile.read(path)
        soundfile.write(path, samples[: int(0.98 * len(samples))], rate)


def songs_of(part):
    rows = files.read_csv("my 'songs'/split.csv")
    return [
        f"{row['artist']}/{row['album']}/{row['song']}"
        for row in rows
        if row["part"] == part
    ]


def weights_of(folder):
    """Names and values, but for the seeds of dropouts, which an export does not use."""
    variables = tf.saved_model.load(str(folder)).variables
    return {v.name: v.numpy() for v in variables if "seed_generator" not in v.name}


def test_one_command_pushes_and_the_next_reuses(place, capsys):
    assert versions.versions("saved_models/m") == [1]
    pushed = pathlib.Path("saved_models/m/1")
    assert integrity.check(pushed)
    metadata = files.read_json(pushed / "lca_keras.json")
    assert metadata["metrics"]["test"]["song"]["count"] == 9
    assert len(metadata["evaluation"]["judgements"]) == len(LENIENT)
    card = (pushed / "model_card.md").read_text(encoding="utf-8")
    assert "| song | 9 songs |" in card
    assert pipeline("c.yaml") == 0
    assert stages_of(capsys.readouterr().out) == dict.fromkeys(ALL, "reused")
    assert versions.versions("saved_models/m") == [1]


def test_the_pushed_model_is_the_trained_one(place):
    [trained] = pathlib.Path("artefacts/m/Trainer").iterdir()
    network = keras.saving.load_model(trained / "m" / "model.keras").main_branch()
    pushed = weights_of("saved_models/m/1")
    for weight in network.weights:
        [value] = [v for name, v in pushed.items() if name.split(":")[0] == weight.path]
        np.testing.assert_array_equal(value, np.array(weight))


@pytest.mark.parametrize(
    ("part", "again"),
    [
        ("test", ["ExampleGen", "StatisticsGen", "ExampleValidator", "Evaluator"]),
        ("train", ALL),
    ],
)
def test_a_changed_song_makes_the_stages_run_that_depend_on_it(
    place, capsys, part, again
):
    shorten(songs_of(part)[0])
    assert pipeline("c.yaml") == 0
    out = capsys.readouterr().out
    expected = {stage: "run" if stage in again else "reused" for stage in ALL}
    assert stages_of(out) == expected
    assert versions.versions("saved_models/m") == ([1] if part == "test" else [1, 2])
    assert pipeline("c.yaml") == 0
    assert stages_of(capsys.readouterr().out) == dict.fromkeys(ALL, "reused")


def test_results_are_a_page_without_anything_to_load(place):
    [folder] = pathlib.Path("artefacts/m/Evaluator").iterdir()
    page = (folder / "results.html").read_text(encoding="utf-8")
    assert "http" not in re.sub("data:[^\"']*", "", page)
    assert "frame_accuracy by artist, change at least -1" in page
    assert "Chiara d&#x27;Onda" in page
    assert (folder / "analysis" / "candidate_song" / "eval_config.json").exists()


def test_a_threshold_that_is_missed_blocks(place, tiny_config, capsys):
    high = [{"metric": "song_accuracy", "slice": "artist", "at_least": 1.0}]
    write_config("high.yaml", tiny_config, high)
    assert pipeline("high.yaml") == 1
    printed = capsys.readouterr()
    assert re.search(
        r"not pushed, saved_models/m/1 stays live\. Evaluator: not blessed: "
        r"song_accuracy by artist, at least 1, is \d\.\d+ \(.+\)\. See artefacts/m/Eva",
        printed.err,
    )
    assert stages_of(printed.out)["Trainer"] == "reused"
    assert versions.versions("saved_models/m") == [1]


def test_a_threshold_on_a_slice_that_is_not_there(place, tiny_config, capsys):
    nobody = [
        {"metric": "song_accuracy", "slice": "artist", "value": "李", "at_least": 0.1}
    ]
    write_config("nobody.yaml", tiny_config, nobody)
    assert pipeline("nobody.yaml") == 1
    assert "no such slice; the test songs have Ada Quill, " in capsys.readouterr().err
    assert versions.versions("saved_models/m") == [1]


def test_a_noised_model_is_not_blessed(place, tiny_config, monkeypatch, capsys):
    """The pushed one has learned its test songs by heart; then its weights shake."""
    train = training.train

    def by_heart(config, sources, num_classes, folder, *rest):
        job = Run.load(folder.parent)
        test = run_sources(job, "test")["test"]
        sources = {"train": test, "validation": test}
        return train(config, sources, num_classes, folder, *rest)

    def noised(config, sources, num_classes, folder, *rest):
        state = by_heart(config, sources, num_classes, folder, *rest)
        path = folder / state.best
        model = keras.saving.load_model(path)
        draw = np.random.default_rng(0)
        for weight in model.trainable_variables:
            value = np.array(weight)
            weight.assign(value + draw.normal(0, 2 * value.std() + 0.1, value.shape))
        model.save(path)
        return state

    change = [{"metric": "song_accuracy", "change_at_least": -0.05}]
    longer = tiny_config.replace(
        train={"epochs": 16, "warmup_epochs": 15, "learning_rate": 5e-3}
    )
    write_config("good.yaml", longer, change)
    write_config("worse.yaml", longer, change, seed=1)
    monkeypatch.setattr(training, "train", by_heart)
    assert pipeline("good.yaml") == 0
    assert versions.versions("saved_models/m") == [1, 2]
    monkeypatch.setattr(training, "train", noised)
    assert pipeline("worse.yaml") == 1
    assert "not blessed: song_accuracy, change at least" in capsys.readouterr().err
    assert versions.versions("saved_models/m") == [1, 2]


def run_sources(job, *parts):
    """Clips of parts of the songs that a run is trained on."""
    from lca_keras.data import corpus

    songs = corpus.prepare(job.source, job.config)
    division = corpus.divide(job.config, songs, job.folder)
    return corpus.clip_sources(
        songs, division.part_of, division.artists, job.config, parts
    )


def test_missing_artists_stop_it_before_the_training(place, capsys):
    with open("my 'songs'/manifest.csv", encoding="utf-8", newline="") as file:
        rows = [row for row in csv.reader(file) if row[1] != "Björn Talvik"]
    with open("my 'songs'/few.csv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)
    split = [row for row in files.read_csv("my 'songs'/split.csv")]
    kept = [row for row in split if row["artist"] != "Björn Talvik"]
    files.write_csv("my 'songs'/split.csv", list(split[0]), kept)
    assert pipeline("c.yaml", data="my 'songs'/few.csv") == 1
    printed = capsys.readouterr()
    assert "anomaly missing artists: 1 of 3 are gone: Björn Talvik" in printed.out
    assert "Trainer" not in stages_of(printed.out)


def test_swapped_artists_stop_it(place, capsys):
    root = pathlib.Path("my 'songs'")
    (root / "Ada Quill").rename(root / "x")
    (root / "Björn Talvik").rename(root / "Ada Quill")
    (root / "x").rename(root / "Björn Talvik")
    stems = root / "stems"
    (stems / "Ada Quill").rename(stems / "x")
    (stems / "Björn Talvik").rename(stems / "Ada Quill")
    (stems / "x").rename(stems / "Björn Talvik")
    assert pipeline("c.yaml") == 1
    assert (
        "anomaly swapped artists: 18 recordings are of another artist than before"
        in (capsys.readouterr().out)
    )


def test_an_artefact_that_was_changed_by_hand(place, capsys):
    [folder] = pathlib.Path("artefacts/m/Evaluator").iterdir()
    (folder / "scores.csv").write_text("better\n")
    assert pipeline("c.yaml") == 0
    out = capsys.readouterr().out
    assert f"Evaluator: {folder} is not as it was left (scores.csv has changed)" in out
    again = stages_of(out)
    assert again == {**dict.fromkeys(ALL, "reused"), "Evaluator": "run"}


def test_a_full_disk_in_pusher_leaves_nothing_half_pushed(place, monkeypatch, capsys):
    shutil.rmtree("saved_models/m/1")
    with monkeypatch.context() as patch:

        def fill(path):
            raise OSError(errno.ENOSPC, "No space left on device", str(path))

        patch.setattr(files, "sync", fill)
        assert pipeline("c.yaml") == 1
    assert "No space left on device" in capsys.readouterr().err
    assert versions.versions("saved_models/m") == []
    assert not list(pathlib.Path("saved_models/m").glob(".export-*"))
    assert pipeline("c.yaml") == 0
    assert stages_of(capsys.readouterr().out)["Pusher"] == "run"
    assert versions.versions("saved_models/m") == [1]


def test_what_was_rolled_back_is_not_pushed_again_unasked(place, tiny_config, capsys):
    """Neither by a run that finds nothing new, nor once its version is pruned."""
    from lca_keras import export

    write_config("other.yaml", tiny_config, seed=1)
    assert pipeline("other.yaml") == 0
    assert export.main(["rollback", "m"]) == 0
    assert versions.versions("saved_models/m") == [1, 2, 3]
    for _ in range(2):
        capsys.readouterr()
        assert pipeline("other.yaml") == 0
        said = capsys.readouterr().out
        assert stages_of(said)["Pusher"] == "reused"
        assert re.search(r"NOT LIVE: saved_models/m/\d is, which has followed it", said)
        assert max(versions.versions("saved_models/m")) == 3
        assert export.main(["prune", "m", "--keep", "1", "--grace", "0"]) == 0
    # What is live is the first model, if under another number.
    assert pipeline("c.yaml") == 0
    assert "live as saved_models/m/3" in capsys.readouterr().out
    assert pipeline("other.yaml", "--from", "Pusher") == 0
    assert versions.versions("saved_models/m") == [3, 4]
    assert labels.labels_of("saved_models/m") == {"stable": 4}


def test_stages_alone(place, capsys):
    assert pipeline("c.yaml", "--from", "evaluator", "--to", "Evaluator") == 0
    again = stages_of(capsys.readouterr().out)
    assert again == {**dict.fromkeys(ALL[:4], "reused"), "Evaluator": "run"}
    shorten(songs_of("test")[0])
    assert pipeline("c.yaml", "--from", "Evaluator") == 1
    assert "ExampleGen has no artefact of these songs" in capsys.readouterr().err
    assert pipeline("c.yaml", "--from", "Pusher", "--to", "Tuner") == 1
    with pytest.raises(SystemExit):
        pipeline("c.yaml", "--to", "Baker")
    assert "'Baker' is none of ExampleGen, " in capsys.readouterr().err


def test_what_is_left_out_is_told_and_under_strict_an_error(place, capsys):
    songs = pathlib.Path("my 'songs'")
    pathlib.Path(songs, "empty.flac").touch()
    rows = files.read_csv(songs / "manifest.csv")
    empty = {**rows[0], "path": "empty.flac", "song": "Empty", "album": "Other"}
    files.write_csv(songs / "manifest.csv", list(rows[0]), [*rows, empty])
    lines = files.read_csv(songs / "split.csv")
    lines.append({**lines[0], "song": "Gone"})
    files.write_csv(songs / "split.csv", list(lines[0]), lines)
    assert pipeline("c.yaml", "--to", "ExampleGen") == 0
    printed = capsys.readouterr().out
    assert re.search(r"left out .*empty\.flac", printed)
    assert re.search(r"1 lines of .*\n?.*Gone", printed)
    assert pipeline("c.yaml", "--to", "ExampleGen", "--strict") == 1
    assert "empty.flac" in capsys.readouterr().err


def test_the_tuner_decides_what_is_trained(place, tiny_config, capsys):
    write_config("tuned.yaml", tiny_config, trials=1)
    assert pipeline("tuned.yaml", "--to", "Trainer") == 0
    assert stages_of(capsys.readouterr().out)["Tuner"] == "run"
    [found] = pathlib.Path("artefacts/m/Tuner").glob("*/best.yaml")
    tuned = yaml.safe_load(found.read_text())["loss"]
    trained = [
        yaml.safe_load(path.read_text())["loss"]
        for path in pathlib.Path("artefacts/m/Trainer").glob("*/m/config.yaml")
    ]
    assert len(trained) == 2
    assert tuned in trained
    assert pipeline("tuned.yaml", "--to", "Trainer") == 0
    again = stages_of(capsys.readouterr().out)
    assert again == dict.fromkeys([*ALL[:3], "Tuner", "Trainer"], "reused")


def test_killed_ten_times_it_ends_as_if_undisturbed(place):
    """At moments drawn by chance; the weights are those of the first fixture's call."""
    expected = weights_of("saved_models/m/1")
    for name in ("artefacts", "saved_models", "features"):
        shutil.rmtree(name)
    command = [sys.executable, "-m", "pipelines.run", "--name", "m"]
    command += ["--data", "my 'songs'/manifest.csv", "--config", "c.yaml"]
    command += ["--split-file", "my 'songs'/split.csv"]
    draw = random.Random(1)
    for _ in range(10):
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            process.wait(draw.uniform(2, 30))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
        for number in versions.versions("saved_models/m"):
            assert integrity.check(f"saved_models/m/{number}")
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert versions.versions("saved_models/m") == [1]
    found = weights_of("saved_models/m/1")
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)
