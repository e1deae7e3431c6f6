"""Cells: computed once, whoever asks."""

import multiprocessing
import threading
import time

import pytest

from lca_keras.base import files, processes
from lca_keras.base.errors import UserError
from lca_keras.workflow import cells

SETTINGS = {"config": {"filters": (4, 8)}, "seed": 1}


def test_a_cell_is_computed_once_and_read_from_then_on(tmp_path):
    calls = []

    def compute():
        calls.append(1)
        return {"f1": 0.5}

    for _ in range(3):
        assert cells.cell(tmp_path / "c", SETTINGS, compute) == {"f1": 0.5}
    assert len(calls) == 1
    assert cells.cell(tmp_path / "c", {**SETTINGS, "seed": 2}, compute) == {"f1": 0.5}
    assert len(calls) == 2  # Another seed is another result.


def test_nobody_goes_on_from_what_other_settings_left(tmp_path):
    def interrupted():
        (tmp_path / "checkpoints").mkdir()
        (tmp_path / "checkpoints" / "epoch 3").touch()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cells.cell(tmp_path, SETTINGS, interrupted)
    kept = list((tmp_path / "checkpoints").iterdir())
    seen = {}

    def look(name):
        seen[name] = list(tmp_path.glob("checkpoints/*"))
        return {"name": name}

    other = {**SETTINGS, "seed": 2}
    cells.cell(tmp_path, SETTINGS, lambda: look("same"))
    cells.cell(tmp_path, other, lambda: look("other"))
    assert seen == {"same": kept, "other": []}
    assert cells.cell(tmp_path, other, dict) == {"name": "other"}


def test_a_failed_cell_is_computed_anew_and_a_damaged_one_named(tmp_path):
    def fail():
        raise ValueError("diverged")

    with pytest.raises(ValueError, match="diverged"):
        cells.cell(tmp_path, SETTINGS, fail)
    assert cells.cell(tmp_path, SETTINGS, lambda: {"f1": 1.0}) == {"f1": 1.0}
    (tmp_path / "cell.json").write_text("{")
    with pytest.raises(UserError, match=r"cell.json is damaged.*delete"):
        cells.cell(tmp_path, SETTINGS, dict)


def test_other_folders_are_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(UserError, match="was not made for a result"):
        cells.cell(tmp_path, SETTINGS, dict)
    assert (tmp_path / "thesis.tex").read_text() == "x"


def test_a_cell_that_another_one_computes_is_left_or_waited_for(tmp_path):
    with files.lock(tmp_path / ".lock"):
        assert cells.cell(tmp_path, SETTINGS, dict, wait=False) is None
        result = []
        waiting = threading.Thread(
            target=lambda: result.append(cells.cell(tmp_path, SETTINGS, dict))
        )
        waiting.start()
        time.sleep(0.2)
        assert result == []
        done = {"settings": SETTINGS, "result": {"f1": 0.7}}
        files.write_json(tmp_path / "cell.json", done)
    waiting.join()
    assert result == [{"f1": 0.7}]


def _work(folder, queue):
    wanted = {}
    for name in "abcdef":

        def compute(name=name):
            with open(folder / "calls", "a") as file:
                file.write(name)
            time.sleep(0.1)
            return {"name": name}

        wanted[name] = folder / name, SETTINGS, compute
    queue.put(dict(cells.cells(wanted, poll_seconds=0.02)))


def test_processes_share_cells(tmp_path):
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    workers = [context.Process(target=_work, args=(tmp_path, queue)) for _ in range(3)]
    for worker in workers:
        worker.start()
    results = [queue.get(timeout=30) for _ in workers]
    for worker in workers:
        worker.join()
    assert results == [{name: {"name": name} for name in "abcdef"}] * 3
    assert sorted((tmp_path / "calls").read_text()) == list("abcdef")


def _double(number, add=0):
    if number == 13:
        import os

        os._exit(1)
    return 2 * number + add


def test_work_is_spread_and_comes_back_in_order():
    seen = []
    calls = [(number, 1) for number in range(12)]
    result = processes.spread(_double, calls, 2, lambda *done: seen.append(done))
    assert result == [2 * number + 1 for number in range(12)]
    assert seen == [(number, 12) for number in range(1, 13)]


def test_a_process_that_dies_is_an_error_in_words():
    with pytest.raises(UserError, match="a process died.*--jobs"):
        processes.spread(_double, [(number,) for number in range(20)], 2)
