"""The search as a user runs it, on a tiny corpus."""

import json
import pathlib
import re
import shlex
import shutil

import keras
import numpy as np
import pytest

from lca_keras.base import files
from lca_keras.base.config import Config
from lca_keras.base.errors import UserError
from lca_keras.data import clips, corpus
from lca_keras.evaluation import scoring
from lca_keras.models import callbacks
from lca_keras.workflow import training
from lca_keras.workflow.course import Course
from lca_keras.workflow.run import Run
from tuning import report, search, space, study, trials
from tuning.journal import Journal

WEIGHTS = {"main": 1.0, "cf_ratio": 0.5, "ent_cf": 0.5, "ent_main_ratio": 0.1}
WEIGHTS |= {"att": 0.5}


@pytest.fixture(scope="module")
def base(tiny_corpus, tiny_config):
    """Warm-up of two epochs, then one of LCA."""
    return tiny_config.replace(
        train={"epochs": 3, "warmup_epochs": 2, "batch_size": 4},
        split={"file": str(tiny_corpus / "split.csv")},
    )


@pytest.fixture(scope="module")
def prepared(tiny_corpus, base, tmp_path_factory):
    """Sources of the training and the validation part, and the corpus."""
    folder = tmp_path_factory.mktemp("data")
    source = corpus.DataSource(data=str(tiny_corpus), features=str(folder / "features"))
    songs = corpus.prepare(source, base)
    division = corpus.divide(base, songs)
    return corpus.clip_sources(songs, division.part_of, division.artists, base)


@pytest.fixture
def sources(prepared):
    return {part: prepared[part] for part in ("train", "validation")}


@pytest.fixture
def workplace(tiny_corpus, base, tmp_path, monkeypatch):
    """A folder to work in, with a base configuration."""
    monkeypatch.chdir(tmp_path)
    base.save(tmp_path / "base.yaml")
    return tmp_path


@pytest.fixture
def quick(monkeypatch):
    """Trials that do not train: the score is a function of the weights."""
    trained = []

    def train(self, config, folder, callbacks=(), go_on_from=None):
        trained.append((config.train.seed, config))
        score = 1 / (1 + config.loss.att + 0.01 * config.train.seed)
        scores = {"frame_f1": score, "song_f1": score, "cf_frame_f1": 0.1}
        return {**scores, "attention_distance": 0.2, "epoch": config.train.epochs}

    monkeypatch.setattr(trials.Trainer, "train", train)
    return trained


def run_search(tiny_corpus, *options):
    arguments = ["--data", str(tiny_corpus), "--base-config", "base.yaml"]
    return search.main([*arguments, "--name", "s", *options])


def table(folder="searches/s"):
    folder = pathlib.Path(folder)
    return trials.results(folder, Journal(folder / "events.jsonl").read())


# === Trials ===


def weights_of(folder, which="last"):
    """Weights that a training has kept."""
    state = training.TrainingState.load(folder)
    return keras.saving.load_model(folder / getattr(state, which)).get_weights()


def assert_same(one, other):
    for left, right in zip(one, other, strict=True):
        np.testing.assert_array_equal(left, right)


@pytest.mark.slow
@pytest.mark.parametrize("deterministic", [False, True])
def test_a_trial_ends_where_fit_ends(sources, base, tmp_path, deterministic):
    """The same weights, scores and best epoch, to the bit."""
    config = space.apply(WEIGHTS, base).replace(
        train={"seed": 1, "deterministic": deterministic}
    )
    source = corpus.DataSource()
    job = Run(folder=tmp_path / "run", config=config, source=source)
    job.save()
    division = corpus.Division({}, ["A", "B", "C"], None, [], [])
    Course(job, None, division, sources).train()
    state = training.TrainingState.load(job.checkpoints)
    trainer = trials.Trainer(tmp_path, sources, 3)
    # Another one before: its warm-up and its model are used again.
    before = space.apply({**WEIGHTS, "att": 2.0}, config)
    trainer.train(before, tmp_path / "before")
    scores = trainer.train(config, tmp_path / "trial")
    assert scores == trials.scores_of(state)
    assert state.best_epoch == 3  # After the warm-up.
    for which in ("last", "best"):
        assert_same(
            weights_of(tmp_path / "trial", which), weights_of(job.checkpoints, which)
        )


@pytest.mark.parametrize("objective", ["frame_f1", "song_f1"])
def test_the_best_epoch_is_the_best_after_the_warm_up(base, objective):
    train = base.replace(train={"objective": objective}).train
    frames = [0.9, 0.8, 0.3, 0.5, 0.5, 0.4]
    songs = [0.9, 0.9, 0.6, 0.2, 0.2, 0.6]
    history = [
        {"epoch": number, "val_f1": frame, "val_song_f1": song}
        for number, (frame, song) in enumerate(zip(frames, songs, strict=True), 1)
    ]
    # Epochs 1 and 2 are warm-up; of equal ones the later.
    expected = {"frame_f1": 5, "song_f1": 6}[objective]
    assert training.best_epoch(history, train) == expected
    assert (
        training.best_epoch(history[:2], train)
        == {"frame_f1": 1, "song_f1": 2}[objective]
    )


@pytest.mark.slow
def test_warm_ups_are_trained_once_and_longer_ones_go_on(sources, base, tmp_path):
    trainer = trials.Trainer(tmp_path, sources, 3)
    trained = []

    class Spy(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            trained.append(epoch)

    expected = []
    for number, (warmup, seed, epochs) in enumerate(
        ((1, 0, [0, 1, 2]), (1, 0, [1, 2]), (2, 0, [1, 2]), (2, 1, [0, 1, 2]))
    ):
        config = space.apply({**WEIGHTS, "warmup_epochs": warmup}, base)
        config = config.replace(train={"seed": seed})
        trainer.train(config, tmp_path / str(number), [Spy()])
        expected += epochs
        assert trained == expected
    # Without the short cut: the whole training in one go.
    training.train(config, sources, 3, tmp_path / "alone")
    assert_same(weights_of(tmp_path / "3"), weights_of(tmp_path / "alone"))


@pytest.mark.slow
def test_going_on_from_a_kept_trial_is_bit_identical(sources, base, tmp_path):
    """What Hyperband does with the trials that it promotes."""
    trainer = trials.Trainer(tmp_path, sources, 3)
    config = space.apply(WEIGHTS, base)
    longer = config.replace(train={"epochs": 5})
    trainer.train(config, tmp_path / "short")
    scores = trainer.train(longer, tmp_path / "long", go_on_from=tmp_path / "short")
    assert scores == trainer.train(longer, tmp_path / "again")
    for which in ("last", "best"):
        assert_same(
            weights_of(tmp_path / "long", which), weights_of(tmp_path / "again", which)
        )


def test_test_songs_are_an_error(prepared, tmp_path):
    with pytest.raises(ValueError, match="nothing else"):
        trials.Trainer(tmp_path, prepared, 3)


# === The command ===


@pytest.mark.slow
def test_a_search_ends_in_a_config_for_fit(workplace, tiny_corpus, base, capsys):
    """Real training: two trials, two seeds each."""
    read = []
    original = clips.ClipSource

    def spy(store, labels, *others):
        read.append(set(labels))
        return original(store, labels, *others)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(corpus, "ClipSource", spy)
        options = ["--trials", "2", "--seeds", "2", "--algorithm", "random"]
        assert run_search(tiny_corpus, *options, "--seed", "5") == 0
    parts = files.read_csv("searches/s/split.csv")
    tested = {
        r["song"] + r["album"] + r["artist"] for r in parts if r["part"] == "test"
    }
    assert len(tested) == 6
    assert sum(map(len, read)) == 12  # Six songs each of training and validation.
    rows = table()
    assert [row.trial for row in rows] == ["0000", "0001"]
    for row in rows:
        seeds = [one["frame_f1"] for one in row.seeds]
        assert len(seeds) == 2
        assert row.score == pytest.approx(np.mean(seeds))
    best = max(rows, key=lambda row: row.score)
    config = Config.load("searches/s/best.yaml")
    assert config == space.apply(best.values, base).replace(train={"seed": 5})
    assert list(pathlib.Path("searches/s/trials/0000").glob("seed-5/events*"))
    out = capsys.readouterr().out
    assert "--config searches/s/best.yaml --name s-best" in out
    # A report, and only it, scores the test songs.
    scored, evaluate = [], scoring.evaluate
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            scoring,
            "evaluate",
            lambda model, source: (
                scored.append(set(source.labels)) or evaluate(model, source)
            ),
        )
        assert report.main(["s", "--compare", "1", "--test"]) == 0
    assert "| test_frame_f1 | test_song_f1 |" in capsys.readouterr().out
    assert [len(songs) for songs in scored] == [6] * 4
    assert not set().union(*scored) & set().union(*read)
    kept = files.read_json("searches/s/compare/plain-seed-7/test/cell.json")
    assert "test_song_f1" in kept["result"]
    # Once more from the beginning: the same trials and scores.
    shutil.move("searches/s", "searches/before")
    assert run_search(tiny_corpus, *options, "--seed", "5") == 0
    assert [(r.values, r.score) for r in table()] == [
        (r.values, r.score) for r in table("searches/before")
    ]


@pytest.mark.parametrize("algorithm", ["bayesian", "hyperband", "random", "grid"])
def test_interrupted_searches_continue(
    workplace, tiny_corpus, quick, monkeypatch, capsys, algorithm
):
    pathlib.Path("space.yaml").write_text(
        "{main: 1, cf_ratio: 0.5, ent_cf: 0.5, ent_main_ratio: {low: 0.1, high: 0.5}}"
    )
    options = ["--algorithm", algorithm, "--space", "space.yaml", "--seeds", "2"]
    if algorithm in ("bayesian", "random"):
        options += ["--trials", "6"]
    if algorithm == "hyperband":
        options += ["--epochs", "11"]
    assert run_search(tiny_corpus, *options) == 0
    whole, all_trained = table(), list(quick)
    shutil.rmtree("searches")
    quick.clear()
    original = trials.Trainer.train

    def stopped(self, config, *args, **kwargs):
        seed = config.train.seed
        if len(quick) in (3, 4, 9) and (seed, len(quick)) not in tried:
            tried.add((seed, len(quick)))
            raise KeyboardInterrupt
        return original(self, config, *args, **kwargs)

    tried = set()
    monkeypatch.setattr(trials.Trainer, "train", stopped)
    codes = [run_search(tiny_corpus, *options)]
    while codes[-1] == 130:
        codes.append(run_search(tiny_corpus, *options))
    assert codes == [130, 130, 130, 0]
    assert "Interrupted. Continue with: python -m tuning.sea" in capsys.readouterr().err
    assert quick == all_trained  # Nothing twice, nothing left out.
    assert table() == whole


def test_failed_trials_are_recorded_and_the_search_goes_on(
    workplace, tiny_corpus, quick, monkeypatch, capsys
):
    original = trials.Trainer.train

    def fragile(self, *args, **kwargs):
        scores = original(self, *args, **kwargs)
        if len(quick) == 2:
            raise callbacks.DivergenceError(float("nan"), 6)
        if len(quick) == 4:
            raise MemoryError("no room")
        return scores

    monkeypatch.setattr(trials.Trainer, "train", fragile)
    assert run_search(tiny_corpus, "--trials", "6") == 0
    scores = [row.score is not None for row in table()]
    assert scores == [True, False, True, False, True, True]
    assert "The loss became nan at step 7" in table()[1].reason
    assert "out of memory: no room" in table()[3].reason
    assert "failed" in capsys.readouterr().out


def test_several_failures_in_a_row_end_it(
    workplace, tiny_corpus, quick, monkeypatch, capsys
):
    original = trials.Trainer.train

    def diverge(*args, **kwargs):
        raise callbacks.DivergenceError(float("inf"), 0)

    with monkeypatch.context() as patch:
        patch.setattr(trials.Trainer, "train", diverge)
        assert run_search(tiny_corpus, "--trials", "5") == 1
    error = capsys.readouterr().err
    assert "3 trials failed in a row" in error
    assert "The loss became inf" in error
    monkeypatch.setattr(trials.Trainer, "train", original)
    assert run_search(tiny_corpus, "--trials", "5") == 0
    assert len(table()) == 5
    assert all(row.score is not None for row in table())


def test_other_errors_end_the_search_with_their_own_words(
    workplace, tiny_corpus, monkeypatch, capsys
):
    def broken(*args, **kwargs):
        raise UserError("feature store damaged: delete this file")

    monkeypatch.setattr(trials.Trainer, "train", broken)
    assert run_search(tiny_corpus, "--trials", "2") == 1
    assert "error: feature store damaged" in capsys.readouterr().err


def test_a_folder_of_another_search_is_left_alone(
    workplace, tiny_corpus, quick, capsys
):
    assert run_search(tiny_corpus, "--trials", "2") == 0
    before = pathlib.Path("searches/s/events.jsonl").read_bytes()
    assert run_search(tiny_corpus, "--trials", "2", "--objective", "song_f1") == 1
    assert (
        "another search: config.train.objective was 'frame_f1', now 'song_f1'."
        in capsys.readouterr().err
    )
    assert pathlib.Path("searches/s/events.jsonl").read_bytes() == before
    pathlib.Path("searches/full").mkdir()
    pathlib.Path("searches/full/thesis.tex").write_text("x")
    assert run_search(tiny_corpus, "--name", "full") == 1
    assert "holds no search" in capsys.readouterr().err
    with study.worker_name("searches/s", "mine"):
        assert run_search(tiny_corpus, "--trials", "3", "--worker", "mine") == 1
    assert "--worker mine: another process of this search" in capsys.readouterr().err


def test_more_trials_lengthen_a_search(workplace, tiny_corpus, quick, capsys):
    assert run_search(tiny_corpus, "--trials", "3") == 0
    assert len(table()) == len(quick) == 3
    assert "continuing" not in capsys.readouterr().out
    assert run_search(tiny_corpus, "--trials", "6") == 0
    assert "continuing; trials that have ended: 3\n" in capsys.readouterr().out
    assert len(table()) == len(quick) == 6
    assert run_search(tiny_corpus) == 0  # As many as before, not the default.
    assert len(quick) == 6
    capsys.readouterr()
    assert run_search(tiny_corpus, "--trials", "4") == 1
    assert "--trials 4: the search in searches/s has begun 6" in capsys.readouterr().err
    assert len(table()) == 6


def test_a_search_that_began_no_trial_gives_its_name_back(
    workplace, tiny_corpus, quick, capsys
):
    options = ["--base-config", "base.yaml", "--name", "s", "--trials", "2"]
    assert search.main(["--data", "nowhere", *options]) == 1
    assert run_search(tiny_corpus, "--trials", "3", "--objective", "song_f1") == 0
    assert len(table()) == 3


def test_ctrl_c_that_tensorflow_wraps_is_still_ctrl_c(
    workplace, tiny_corpus, monkeypatch, capsys
):
    def traced(*args, **kwargs):
        raise RuntimeError("error_already_set: ... REPLACED BY KeyboardInterrupt")

    monkeypatch.setattr(trials.Trainer, "train", traced)
    assert run_search(tiny_corpus, "--trials", "2") == 130
    assert "Interrupted. Continue with: python -m tuning.sea" in capsys.readouterr().err


def test_the_commands_for_what_comes_next_can_be_pasted(
    workplace, tiny_corpus, quick, capsys
):
    assert run_search(tiny_corpus, "--trials", "2", "--name", "this one") == 0
    out = capsys.readouterr().out
    lines = [line.split("python -m ")[-1] for line in out.splitlines()]
    words = shlex.split(next(line for line in lines if "lca_keras.fit" in line))
    assert words[1:3] == ["--data", str(tiny_corpus)]
    assert words[3:5] == ["--config", "searches/this one/best.yaml"]
    words = shlex.split(next(line for line in lines if "tuning.report" in line))
    assert words == ["tuning.report", "this one"]


def test_options_that_cannot_be(workplace, tiny_corpus, capsys):
    for options, message in (
        (["--trials", "0"], "--trials must be at least 1"),
        (["--epochs", "2"], "2 epochs leave nothing after a warm-up of 2"),
        (["--algorithm", "hyperband", "--trials", "3"], "decides by itself"),
        (["--worker", "a/b"], "use letters, digits"),
        (["--worker", ""], "use letters, digits"),
        (["--store", "x"], "--data and --store exclude each other"),
        (["--separator", "umxl"], "--separator is for --source vocals"),
        (["--space", "none.yaml"], "cannot read space none.yaml"),
        (["--name", "../x"], "--name '../x'"),
        (["--preset", "demo"], "exclude each other"),
    ):
        assert run_search(tiny_corpus, *options) == 1
        assert message in capsys.readouterr().err
        shutil.rmtree("searches", ignore_errors=True)
    assert search.main(["--name", "x"]) == 1
    assert "either --data or --store" in capsys.readouterr().err
    config = Config.load("base.yaml").replace(train={"method": "none"})
    config.save("plain.yaml")
    arguments = ["--data", str(tiny_corpus), "--base-config", "plain.yaml"]
    assert search.main([*arguments, "--name", "x"]) == 1
    assert "weights of method lca" in capsys.readouterr().err


def test_a_store_is_searched_by_the_rules_of_fit(workplace, tiny_corpus, quick, capsys):
    base = Config.load("base.yaml")
    source = corpus.DataSource(data=str(tiny_corpus))
    store = corpus.prepare(source, base).store.folder
    options = ["--base-config", "base.yaml", "--name", "s", "--store", str(store)]
    assert search.main([*options, "--melody", "pyin", "--trials", "2"]) == 1
    assert "holds features with melody 'none', but 'pyin'" in capsys.readouterr().err
    base.replace(features={"mel_bins": 64}).save("other.yaml")
    assert search.main([*options, "--base-config", "other.yaml"]) == 1
    assert "holds features with mel_bins 128, but 64" in capsys.readouterr().err
    assert not pathlib.Path("searches").exists()
    assert search.main([*options, "--trials", "2"]) == 0
    out = capsys.readouterr().out
    assert f"fit --store '{store.absolute()}' --config searches/s/best.yaml" in out


def test_no_validation_songs(workplace, tiny_corpus, capsys):
    rows = files.read_csv(tiny_corpus / "split.csv")
    for row in rows:
        row["part"] = row["part"].replace("validation", "train")
    files.write_csv("split.csv", list(rows[0]), rows)
    assert run_search(tiny_corpus, "--split-file", "split.csv") == 1
    assert "validation" in capsys.readouterr().err
    assert not pathlib.Path("searches/s/events.jsonl").exists()


# === The report ===


def test_report_draws_ranks_and_compares(workplace, tiny_corpus, quick, capsys):
    assert run_search(tiny_corpus, "--trials", "12", "--seeds", "2") == 0
    capsys.readouterr()
    assert report.main(["s", "--compare", "1"]) == 0
    out = capsys.readouterr().out
    pictures = pathlib.Path("searches/s/report")
    for name in ("weights.png", "parallel.png"):
        assert (pictures / name).read_bytes().startswith(b"\x89PNG")
    assert (pictures / "report.md").read_text(encoding="utf-8") in out
    # The score depends on att alone, and nothing else matters as much.
    lines = out.splitlines()
    first = lines[lines.index("| weight | importance |") + 2]
    assert first.startswith("| att |")
    assert re.search(r"an R\^2 of 0\.\d\d: a hint", out)
    seeds = {seed for seed, _ in quick[24:]}
    assert seeds == {2}  # Fresh: the search had 0 and 1.
    methods = [config.train.method for _, config in quick[24:]]
    assert methods == ["lca", "lca", "lca", "none"]
    rows = files.read_csv("searches/s/trials.csv")
    assert len(rows) == 12
    best = max(rows, key=lambda row: float(row["score"]))
    att = Config.load("searches/s/best.yaml").loss.att
    assert float(best["att"]) == pytest.approx(att, rel=1e-5)
    count = len(quick)
    assert report.main(["s", "--compare", "1"]) == 0
    assert len(quick) == count  # Read, not trained again.
    assert report.main(["s", "--compare", "0"]) == 1
    assert "--compare must be at least 1, not 0" in capsys.readouterr().err


def test_few_trials_are_not_ranked(workplace, tiny_corpus, quick, capsys):
    assert run_search(tiny_corpus, "--trials", "2") == 0
    assert report.main(["s"]) == 0
    out = capsys.readouterr().out
    assert "Not ranked: 2 trials with all epochs; 5 weights need 10" in out
    assert "| importance |" not in out
    assert pathlib.Path("searches/s/report/weights.png").exists()


def test_report_of_nothing(workplace, capsys):
    assert report.main(["nowhere"]) == 1
    assert "not the folder of a search of" in capsys.readouterr().err
    pathlib.Path("searches/s").mkdir(parents=True)
    found = {"algorithm": "random", "trials": 2, "seeds": 1, "space": {}, "config": {}}
    pathlib.Path("searches/s/search.json").write_text(json.dumps(found))
    pathlib.Path("searches/s/source.json").write_text('{"data": "x"}')
    assert report.main(["s"]) == 1
    assert "no trial succeeded" in capsys.readouterr().err
