"""The search as a user runs it, on a tiny corpus."""

import json
import pathlib
import shlex
import shutil

import keras
import numpy as np
import pytest

from lca_keras import callbacks, evaluate, files, training
from lca_keras.config import Config
from tuning import report, runner, search, space, trials

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
    job = training.Job(str(tiny_corpus), "x", features=str(folder / "features"))
    corpus = training.prepare_corpus(job, base)
    part_of, artists = training.divide(base, corpus, folder)
    return training.sources_of(corpus, part_of, artists, base)


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

    def train(self, config, seed, progress=None, resume=None, keep=None):
        trained.append((seed, config))
        score = 1 / (1 + config.loss.att + 0.01 * seed)
        if keep is not None:
            keep.write_text("")
        return trials.Scores(score, score, 0.1, 0.2, config.train.epochs), None

    monkeypatch.setattr(trials.Trainer, "train", train)
    return trained


def run(tiny_corpus, *options):
    arguments = ["--data", str(tiny_corpus), "--base-config", "base.yaml"]
    return search.main([*arguments, "--name", "s", *options])


def table(folder="searches/s"):
    found = search.Search(**files.read_json(pathlib.Path(folder, "search.json")))
    return runner.results(pathlib.Path(folder), found)


# === Trials ===


def test_shared_warm_up_is_bit_identical_to_training_again(sources, base, tmp_path):
    config = space.apply({**WEIGHTS, "warmup_epochs": 2}, base)
    models = []
    for name in ("shared", "alone"):
        trainer = trials.Trainer(tmp_path / name, sources, 3, "frame_f1")
        if name == "shared":
            # Others before: warm-up and, of the second one, the model are used again.
            for change in ({"cf_dropout": 0.1}, {"att": 2.0, "learning_rate": 0.01}):
                trainer.train(space.apply({**WEIGHTS, **change}, base), 0)
            trainer.train(config, 1)
            kept = trainer._models[0][0]
            _, model = trainer.train(config, 0)
            assert model is kept
        else:
            # Without the short cut: all epochs in one go.
            seeded = config.replace(train={"seed": 0})
            model = trainer._fresh_model(seeded)
            trainer._fit(model, seeded, 0, 3, [], None)
        models.append(model)
    shared, alone = (model.get_weights() for model in models)
    for one, other in zip(shared, alone, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_warm_ups_are_trained_once_and_longer_ones_go_on(sources, base, tmp_path):
    trainer = trials.Trainer(tmp_path, sources, 3, "frame_f1")
    trained = []
    fit = trainer._fit

    def spy(model, config, first, last, extra, progress):
        trained.append((config.train.seed, first, last))
        fit(model, config, first, last, extra, progress)

    trainer._fit = spy
    for warmup, seed in ((1, 0), (1, 0), (2, 0), (2, 1)):
        config = space.apply({**WEIGHTS, "warmup_epochs": warmup}, base)
        trainer.train(config, seed)
    assert trained == [
        *((0, 0, 1), (0, 1, 3)),
        (0, 1, 3),
        *((0, 1, 2), (0, 2, 3)),
        *((1, 0, 2), (1, 2, 3)),
    ]


@pytest.mark.slow
def test_going_on_from_a_kept_trial_is_bit_identical(sources, base, tmp_path):
    """What Hyperband does with the trials that it promotes."""
    trainer = trials.Trainer(tmp_path, sources, 3, "frame_f1")
    config = space.apply(WEIGHTS, base)
    longer = config.replace(train={"epochs": 5})
    kept = tmp_path / "epoch-0003.keras"
    trainer.train(config, 0, keep=kept)
    scores, _ = trainer.train(
        longer, 0, resume=kept, keep=tmp_path / "epoch-0005.keras"
    )
    again, _ = trainer.train(longer, 0, keep=tmp_path / "whole-0005.keras")
    assert scores == again
    for name in ("epoch-0005", "whole-0005"):
        rows = files.read_json(tmp_path / f"{name}.json")
        assert [row["epoch"] for row in rows] == [3, 4, 5]
    one, other = (
        keras.saving.load_model(tmp_path / f"{name}.keras").get_weights()
        for name in ("epoch-0005", "whole-0005")
    )
    for left, right in zip(one, other, strict=True):
        np.testing.assert_array_equal(left, right)


def test_scores_are_those_of_the_returned_model(sources, base, tmp_path):
    trainer = trials.Trainer(tmp_path, sources, 3, "song_f1")
    config = space.apply(WEIGHTS, base).replace(train={"epochs": 4})
    scores, model = trainer.train(config, 0)
    found, _ = evaluate.evaluate_part(model, sources["validation"])
    assert scores.frame_f1 == pytest.approx(found["frame"]["f1"])
    assert scores.song_f1 == pytest.approx(found["song"]["f1"])
    assert scores.epoch in (3, 4)  # After the warm-up.


def test_test_songs_are_an_error(prepared, tmp_path):
    with pytest.raises(ValueError, match="nothing else"):
        trials.Trainer(tmp_path, prepared, 3, "frame_f1")


# === The command ===


@pytest.mark.slow
def test_a_search_ends_in_a_config_for_fit(workplace, tiny_corpus, base, capsys):
    """Real training: two trials, two seeds each."""
    read = []
    original = training.clip_source

    def spy(store, labels, config):
        read.append(set(labels))
        return original(store, labels, config)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "clip_source", spy)
        options = ["--trials", "2", "--seeds", "2", "--algorithm", "random"]
        assert run(tiny_corpus, *options, "--seed", "5") == 0
    parts = files.read_csv("searches/s/split.csv")
    tested = {
        r["song"] + r["album"] + r["artist"] for r in parts if r["part"] == "test"
    }
    assert len(tested) == 6
    assert sum(map(len, read)) == 12  # Six songs each of training and validation.
    rows = table()
    assert [row["trial"] for row in rows] == ["0000", "0001"]
    for row in rows:
        seeds = [one.frame_f1 for one in row["seeds"]]
        assert len(seeds) == 2
        assert row["score"] == pytest.approx(np.mean(seeds))
    best = max(rows, key=lambda row: row["score"])
    config = Config.load("searches/s/best.yaml")
    assert config == space.apply(best["values"], base).replace(train={"seed": 5})
    assert list(pathlib.Path("searches/s/trials/0000").glob("seed-5/events*"))
    out = capsys.readouterr().out
    assert "--config searches/s/best.yaml --name s-best" in out
    # A report, and only it, scores the test songs.
    scored, evaluate_part = [], evaluate.evaluate_part
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            evaluate,
            "evaluate_part",
            lambda model, source: (
                scored.append(set(source.labels)) or evaluate_part(model, source)
            ),
        )
        assert report.main(["s", "--compare", "1", "--test"]) == 0
    assert "| test_frame_f1 | test_song_f1 |" in capsys.readouterr().out
    others = [songs for songs in scored if not songs & set().union(*read)]
    assert [len(songs) for songs in others] == [6] * 4
    assert (
        "test_song_f1"
        in files.read_json("searches/s/compare/plain-seed-7.json")["scores"]
    )
    # Once more from the beginning: the same trials and scores.
    shutil.move("searches/s", "searches/before")
    assert run(tiny_corpus, *options, "--seed", "5") == 0
    assert [(r["values"], r["score"]) for r in table()] == [
        (r["values"], r["score"]) for r in table("searches/before")
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
    assert run(tiny_corpus, *options) == 0
    whole, all_trained = table(), list(quick)
    shutil.rmtree("searches")
    quick.clear()
    original = trials.Trainer.train

    def stopped(self, config, seed, *args, **kwargs):
        if len(quick) in (3, 4, 9) and (seed, len(quick)) not in tried:
            tried.add((seed, len(quick)))
            raise KeyboardInterrupt
        return original(self, config, seed, *args, **kwargs)

    tried = set()
    monkeypatch.setattr(trials.Trainer, "train", stopped)
    codes = [run(tiny_corpus, *options)]
    while codes[-1] == 130:
        codes.append(run(tiny_corpus, *options))
    assert codes == [130, 130, 130, 0]
    assert "Interrupted. Continue with: python -m tuning.sea" in capsys.readouterr().err
    assert quick == all_trained  # Nothing twice, nothing left out.
    assert table() == whole


def test_failed_trials_are_recorded_and_the_search_goes_on(
    workplace, tiny_corpus, quick, monkeypatch, capsys
):
    original = trials.Trainer.train

    def fragile(self, config, seed, *args, **kwargs):
        scores = original(self, config, seed, *args, **kwargs)
        if len(quick) == 2:
            raise callbacks.DivergenceError(float("nan"), 6)
        if len(quick) == 4:
            raise MemoryError("no room")
        return scores

    monkeypatch.setattr(trials.Trainer, "train", fragile)
    assert run(tiny_corpus, "--trials", "6") == 0
    scores = [row["score"] is not None for row in table()]
    assert scores == [True, False, True, False, True, True]
    assert "The loss became nan at step 7" in table()[1]["reason"]
    assert "out of memory: no room" in table()[3]["reason"]
    assert "failed" in capsys.readouterr().out


def test_several_failures_in_a_row_end_it(
    workplace, tiny_corpus, quick, monkeypatch, capsys
):
    original = trials.Trainer.train

    def diverge(*args, **kwargs):
        raise callbacks.DivergenceError(float("inf"), 0)

    with monkeypatch.context() as patch:
        patch.setattr(trials.Trainer, "train", diverge)
        assert run(tiny_corpus, "--trials", "5") == 1
    error = capsys.readouterr().err
    assert "3 trials failed in a row" in error
    assert "The loss became inf" in error
    monkeypatch.setattr(trials.Trainer, "train", original)
    assert run(tiny_corpus, "--trials", "5") == 0
    assert len(table()) == 5
    assert all(row["score"] is not None for row in table())


def test_other_errors_end_the_search_with_their_own_words(
    workplace, tiny_corpus, monkeypatch, capsys
):
    def broken(*args, **kwargs):
        raise training.UserError("feature store damaged: delete this file")

    monkeypatch.setattr(trials.Trainer, "train", broken)
    assert run(tiny_corpus, "--trials", "2") == 1
    assert "error: feature store damaged" in capsys.readouterr().err


def test_a_folder_of_another_search_is_left_alone(
    workplace, tiny_corpus, quick, capsys
):
    assert run(tiny_corpus, "--trials", "2") == 0
    before = pathlib.Path("searches/s/events.jsonl").read_bytes()
    assert run(tiny_corpus, "--trials", "2", "--objective", "song_f1") == 1
    assert (
        "another search: objective was 'frame_f1', now 'song_f1'."
        in capsys.readouterr().err
    )
    assert pathlib.Path("searches/s/events.jsonl").read_bytes() == before
    pathlib.Path("searches/full").mkdir()
    pathlib.Path("searches/full/thesis.tex").write_text("x")
    assert run(tiny_corpus, "--name", "full") == 1
    assert "holds no search" in capsys.readouterr().err
    with files.lock("searches/s/.lock"):
        assert run(tiny_corpus, "--trials", "2") == 1
    assert "another process is at work" in capsys.readouterr().err


def test_more_trials_lengthen_a_search(workplace, tiny_corpus, quick, capsys):
    assert run(tiny_corpus, "--trials", "3") == 0
    assert len(table()) == len(quick) == 3
    assert run(tiny_corpus, "--trials", "6") == 0
    assert len(table()) == len(quick) == 6
    assert run(tiny_corpus) == 0  # As many as before, not the default.
    assert len(quick) == 6
    capsys.readouterr()
    assert run(tiny_corpus, "--trials", "4") == 1
    assert "--trials 4: the search in searches/s has begun 6" in capsys.readouterr().err
    assert len(table()) == 6


def test_a_search_that_began_no_trial_gives_its_name_back(
    workplace, tiny_corpus, quick, capsys
):
    options = ["--base-config", "base.yaml", "--name", "s", "--trials", "2"]
    assert search.main(["--data", "nowhere", *options]) == 1
    assert run(tiny_corpus, "--trials", "3", "--objective", "song_f1") == 0
    assert len(table()) == 3


def test_ctrl_c_that_tensorflow_wraps_is_still_ctrl_c(
    workplace, tiny_corpus, monkeypatch, capsys
):
    def traced(*args, **kwargs):
        raise RuntimeError("error_already_set: ... REPLACED BY KeyboardInterrupt")

    monkeypatch.setattr(trials.Trainer, "train", traced)
    assert run(tiny_corpus, "--trials", "2") == 130
    assert "Interrupted. Continue with: python -m tuning.sea" in capsys.readouterr().err


def test_the_commands_for_what_comes_next_can_be_pasted(
    workplace, tiny_corpus, quick, capsys
):
    assert run(tiny_corpus, "--trials", "2", "--name", "this one") == 0
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
        (["--worker", "w"], "--worker needs --chief"),
        (["--chief", "nowhere"], "expected HOST:PORT"),
        (["--chief", "here:99999"], "the port from 1 to 65535"),
        (["--space", "none.yaml"], "cannot read space none.yaml"),
        (["--name", "../x"], "--name '../x'"),
        (["--preset", "demo"], "exclude each other"),
    ):
        assert run(tiny_corpus, *options) == 1
        assert message in capsys.readouterr().err
        shutil.rmtree("searches", ignore_errors=True)
    assert search.main(["--name", "x"]) == 1
    assert "either --data or --store" in capsys.readouterr().err
    config = Config.load("base.yaml").replace(train={"method": "none"})
    config.save("plain.yaml")
    arguments = ["--data", str(tiny_corpus), "--base-config", "plain.yaml"]
    assert search.main([*arguments, "--name", "x"]) == 1
    assert "weights of method lca" in capsys.readouterr().err


def test_no_validation_songs(workplace, tiny_corpus, capsys):
    rows = files.read_csv(tiny_corpus / "split.csv")
    for row in rows:
        row["part"] = row["part"].replace("validation", "train")
    files.write_csv("split.csv", list(rows[0]), rows)
    assert run(tiny_corpus, "--split-file", "split.csv") == 1
    assert "validation" in capsys.readouterr().err
    assert not pathlib.Path("searches/s/events.jsonl").exists()


# === The report ===


def test_report_draws_ranks_and_compares(workplace, tiny_corpus, quick, capsys):
    assert run(tiny_corpus, "--trials", "12", "--seeds", "2") == 0
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


def test_report_of_nothing(workplace, capsys):
    assert report.main(["nowhere"]) == 1
    assert "not the folder of a search" in capsys.readouterr().err
    pathlib.Path("searches/s").mkdir(parents=True)
    found = {"algorithm": "random", "trials": 2, "seeds": 1, "objective": "frame_f1"}
    found |= {"space": {}, "config": {}}
    pathlib.Path("searches/s/search.json").write_text(json.dumps(found))
    pathlib.Path("searches/s/job.json").write_text('{"data": "x", "name": "s"}')
    assert report.main(["s"]) == 1
    assert "no trial succeeded" in capsys.readouterr().err
