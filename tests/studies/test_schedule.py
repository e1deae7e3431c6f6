import contextlib
import json
import multiprocessing
import os
import shutil

import numpy as np
import pytest

from lca_keras.base import files
from lca_keras.base.errors import UserError
from lca_keras.base.observer import Observer
from lca_keras.data.corpus import DataSource
from lca_keras.studies import schedule
from lca_keras.studies.laboratory import Laboratory, configure
from lca_keras.studies.schedule import Crew, Plan


@pytest.fixture(scope="module")
def config(tiny_config, tiny_corpus):
    return tiny_config.replace(split={"file": str(tiny_corpus / "split.csv")})


@pytest.fixture(scope="module")
def laboratory(tiny_corpus, tmp_path_factory):
    folder = tmp_path_factory.mktemp("laboratory")
    source = DataSource(data=str(tiny_corpus), features=str(folder / "features"))
    return Laboratory(folder / "out", source)


def test_settings_have_a_folder_each_and_content_decides(laboratory, config, tmp_path):
    plain = configure("none", config)
    folder, settings = laboratory.place("none", plain)
    assert laboratory.place("none", plain) == (folder, settings)
    for other in (
        plain.replace(train={"epochs": 3}),
        plain.replace(train={"seed": 5}),
        plain.replace(loss={"att": 0.1}),
    ):
        assert laboratory.place("none", other)[0] != folder
    # Wherever the split is written, the same parts are the same training.
    copy = tmp_path / "copied split.csv"
    shutil.copy(config.split.file, copy)
    moved = plain.replace(split={"file": str(copy)})
    assert laboratory.place("none", moved) == (folder, settings)
    # Another part for a song is another training.
    rows = files.read_csv(copy)
    for row in rows:
        if row["artist"] == rows[0]["artist"]:
            swap = {"validation": "test", "test": "validation"}
            row["part"] = swap.get(row["part"], row["part"])
    files.write_csv(copy, list(rows[0]), [dict(row) for row in rows])
    swapped = moved.replace(split={"file": str(tmp_path / "swapped.csv")})
    files.write_csv(swapped.split.file, list(rows[0]), [dict(row) for row in rows])
    assert laboratory.place("none", swapped)[0] != folder


def test_a_plan_knows_what_is_missing(laboratory, config):
    wanted = {
        seed: (
            laboratory,
            "none",
            configure("none", config).replace(train={"seed": seed}),
        )
        for seed in (0, 1, 2)
    }
    plan = Plan(wanted)
    assert plan.missing() == [0, 1, 2]
    assert plan.epochs() == (0, 6)
    folder, settings, _ = plan.cells[0]
    folder.mkdir(parents=True)
    files.write_json(folder / "cell.json", {"settings": settings, "result": {"a": 1}})
    half, _, _ = plan.cells[1]
    (half / "checkpoints").mkdir(parents=True)
    (half / "checkpoints" / "state.json").write_text(json.dumps({"epoch": 1}))
    assert plan.missing() == [1, 2]
    assert plan.epochs() == (3, 6)


def test_an_analysis_is_told_and_computed_once(tmp_path):
    told = []

    class Ear(Observer):
        def progress(self, title):
            return contextlib.nullcontext(lambda *counts: told.append((title, counts)))

    crew = Crew(1, None, tmp_path / "log", Ear())
    for number in (1, 2):
        wanted = {"a": (tmp_path / "a", {"seed": 0}, lambda n=number: {"n": n})}
        assert crew.analyse("Listening", wanted) == {"a": {"n": 1}}
    assert told == [("Listening", (0, 1)), ("Listening", (1, 1))] * 2


def test_what_ends_a_helper_is_in_the_log_and_not_on_the_screen(tmp_path, capfd):
    job = (os.getpid(), str(tmp_path / "log"), int, ("no number",))
    context = multiprocessing.get_context("spawn")
    helper = context.Process(target=schedule._help, args=job)
    helper.start()
    helper.join()
    assert helper.exitcode == 1
    assert "ValueError: invalid literal" in (tmp_path / "log").read_text()
    assert capfd.readouterr().err == ""


def test_a_model_deleted_by_hand_is_named(laboratory, config):
    trained = laboratory.trained("none", configure("none", config), {})
    with pytest.raises(UserError, match="To train it again, delete .*seed-0"):
        trained.model()


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(12.3, "12 s"), (89, "89 s"), (600, "10 min"), (7200, "2.0 h")],
)
def test_durations_for_people(seconds, said):
    assert schedule.duration(seconds) == said


def test_warm_ups_are_shared_by_what_begins_alike(laboratory, config, monkeypatch):
    from lca_keras.workflow import training, warm_up

    begun = []

    def train(config, sources, classes, folder, callbacks, build):
        begun.append(folder)

    monkeypatch.setattr(training, "train", train)
    monkeypatch.setattr(training, "go_on_from", lambda folder, other: None)
    sources, artists = laboratory.sources(config)
    for variant in ("lca", "lca+no-att", "lca+logit", "lca+detach", "cal", "none"):
        changed = configure(variant, config)
        folder = laboratory.out / "w" / variant
        warm_up.begin(changed, sources, len(artists), folder, laboratory.out / "shared")
    assert len(begun) == 5  # Without a counterfactual there is nothing to share.
    assert len(set(begun)) == 2
    assert len({str(folder) for folder in begun[:4]}) == 1
    assert np.all([folder.exists() for folder in begun])
