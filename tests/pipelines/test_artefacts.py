"""Artefacts of stages: reused, done anew, gone on with, and what changed by hand."""

import pytest

from lca_keras.base import files
from lca_keras.base.config import Config
from lca_keras.base.errors import UserError
from lca_keras.base.observer import Observer
from pipelines.artefacts import Workshop, digest


@pytest.fixture
def told():
    return []


@pytest.fixture
def workshop(tmp_path, told):
    observer = Observer()
    observer.note = told.append
    return Workshop(tmp_path / "work", Config(), observer=observer)


def writer(text, outcome="done"):
    """A stage that writes a file and counts its calls."""

    def make(folder):
        make.calls += 1
        (folder / "sub").mkdir(exist_ok=True)
        (folder / "sub" / "a.txt").write_text(text)
        return {"verdict": outcome}

    make.calls = 0
    return make


def test_a_stage_is_skipped_until_something_changes(workshop):
    make = writer("x")
    first = workshop.artefact("Trainer", {"songs": ["é", 1], "rate": 0.5}, make)
    again = workshop.artefact("Trainer", {"rate": 0.5, "songs": ["é", 1]}, make)
    assert (first.reused, again.reused, make.calls) == (False, True, 1)
    assert again.folder == first.folder
    assert again.outcome == {"verdict": "done"}
    other = workshop.artefact("Trainer", {"songs": ["é", 2], "rate": 0.5}, make)
    assert (other.reused, make.calls) == (False, 2)
    assert other.folder != first.folder
    back = workshop.artefact("Trainer", {"songs": ["é", 1], "rate": 0.5}, make)
    assert (back.reused, make.calls) == (True, 2)
    assert [each.reused for each in workshop.made] == [False, True, False, True]


def test_the_record_says_what_made_it(workshop):
    artefact = workshop.artefact("Tuner", {"trials": 3}, writer("x"))
    record = files.read_json(artefact.folder / "cell.json")
    assert record["settings"] == {"stage": "Tuner", "trials": 3}
    result = record["result"]
    assert set(result["files"]) == {"sub/a.txt"}
    assert result["files"]["sub/a.txt"] == files.sha256(artefact.folder / "sub/a.txt")
    assert result["environment"]["packages"]["tensorflow"]
    assert result["host"]
    assert record["seconds"] >= 0


@pytest.mark.parametrize("harm", ["change", "delete"])
def test_what_was_changed_by_hand_is_said_and_done_anew(workshop, told, harm):
    make = writer("x")
    folder = workshop.artefact("Trainer", {}, make).folder
    (folder / "checkpoint").touch()
    path = folder / "sub" / "a.txt"
    path.write_text("y") if harm == "change" else path.unlink()
    assert not workshop.artefact("Trainer", {}, make).reused
    problem = {"change": "has changed", "delete": "is missing"}[harm]
    assert told == [f"Trainer: {folder} is not as it was left (sub/a.txt {problem})"]
    assert path.read_text() == "x"
    assert (folder / "checkpoint").exists()  # A long training goes on from there.
    assert workshop.artefact("Trainer", {}, make).reused


def test_only_essential_files_count(workshop):
    make = writer("x")
    folder = workshop.artefact("Trainer", {}, make, essential=("*.txt",)).folder
    (folder / "sub" / "a.txt").write_text("y")
    assert workshop.artefact("Trainer", {}, make, essential=("*.txt",)).reused


def test_what_is_lost_elsewhere_is_done_anew(workshop, told):
    make = writer("x")
    workshop.artefact("Pusher", {}, make)
    assert workshop.artefact("Pusher", {}, make, lost=lambda outcome: None).reused

    def lost(outcome):
        return f"{outcome['verdict']} is gone"

    assert not workshop.artefact("Pusher", {}, make, lost=lost).reused
    assert "done is gone" in told[0]


def test_a_stage_that_failed_goes_on_in_its_folder(workshop):
    def fail(folder):
        (folder / "half").touch()
        raise UserError("out of luck")

    with pytest.raises(UserError, match="out of luck"):
        workshop.artefact("Trainer", {}, fail)

    def go_on(folder):
        assert (folder / "half").exists()
        return {"verdict": "done"}

    assert not workshop.artefact("Trainer", {}, go_on).reused


def test_stages_anew_and_stages_that_have_to_be_there(workshop):
    make = writer("x")
    folder = workshop.artefact("Trainer", {}, make).folder
    (folder / "checkpoint").touch()
    workshop.anew = frozenset(["Trainer"])
    assert not workshop.artefact("Trainer", {}, make).reused
    assert not (folder / "checkpoint").exists()
    workshop.anew, workshop.fixed = frozenset(), frozenset(["Trainer"])
    assert workshop.artefact("Trainer", {}, make).reused
    with pytest.raises(UserError, match=r"Trainer has no artefact .*--from Trainer"):
        workshop.artefact("Trainer", {"other": 1}, make)
    assert make.calls == 2


def test_a_damaged_record_is_named(workshop):
    folder = workshop.artefact("Trainer", {}, writer("x")).folder
    (folder / "cell.json").write_text("{")
    with pytest.raises(UserError, match=r"cell.json is damaged .*: delete"):
        workshop.artefact("Trainer", {}, writer("x"))


def test_digests_do_not_depend_on_the_order_of_keys():
    assert digest({"a": 1, "b": (2, "\udce9")}) == digest({"b": [2, "\udce9"], "a": 1})
    assert digest({"a": 1}) != digest({"a": 2})
