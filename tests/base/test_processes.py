"""Work in several processes, and locks: what those that are killed leave behind."""

import concurrent.futures
import functools
import logging
import multiprocessing
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import pytest

from lca_keras.base import files, processes

_HOLDER = """
import sys, time
from lca_keras.base import files, processes

with files.lock("place/.lock"):
    print("held", flush=True)
    if sys.argv[1] == "spread":
        processes.spread(time.sleep, [(0.5,)] * 1000, jobs=2, progress=print)
    time.sleep(float(sys.argv[2]))
"""


@pytest.fixture
def holder(tmp_path, monkeypatch):
    """Starts a process that holds `place/.lock`, alone or with a pool at work."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "place").mkdir()
    started = []

    def start(kind, seconds=600):
        process = subprocess.Popen(
            [sys.executable, "-c", _HOLDER, kind, str(seconds)],
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stdout.readline() == "held\n"
        if kind == "spread":  # Its processes are at work.
            assert process.stdout.readline().split()[1] == "1000"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_a_pool_that_is_killed_leaves_no_lock(holder):
    """Its processes are forked, with the lock, and would wait for work for ever."""
    process = holder("spread")
    process.send_signal(signal.SIGKILL)
    process.wait()
    give_up = time.monotonic() + 60
    while True:
        try:
            with files.lock("place/.lock", wait=False):
                return
        except files.LockedError:
            assert time.monotonic() < give_up
            time.sleep(0.1)


def test_a_lock_needs_no_room(tmp_path):
    """Where the disk is full, who wants to delete needs it most."""
    program = """
import resource, sys
from lca_keras.base import files

resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
for _ in range(2):
    with files.lock(sys.argv[1]):
        try:
            with files.lock(sys.argv[1], wait=False):
                print("not held")
        except files.LockedError:
            print("held")
"""
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path / ".lock"],
        capture_output=True,
        text=True,
    )
    assert done.stdout == "held\nheld\n", done.stderr


def test_whoever_waits_says_for_whom(holder, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(files, "_SOON_SECONDS", 0.1)
    monkeypatch.setattr(logging.getLogger(), "level", logging.ERROR)
    process = holder("alone", 2)
    named = rf"^place: another process is at work here \(process {process.pid} on .+\)$"
    with pytest.raises(files.LockedError, match=named):
        files.lock("place/.lock", wait=False).__enter__()
    with files.lock("place/.lock"):
        pass
    assert not (tmp_path / "place/.lock").stat().st_size
    (said,) = (each for each in caplog.messages if each.startswith("note"))
    assert re.search(rf"note: waiting, place: .*process {process.pid} on", said)


def test_who_waits_for_a_moment_says_nothing(holder, caplog):
    holder("alone", 1)
    with files.lock("place/.lock"):
        pass
    assert not caplog.messages


# === Calls ===


def _fragile(number):
    if number == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return -number


@pytest.mark.parametrize("workers", [1, 2])
def test_a_call_that_brings_its_process_down_is_one_call_less(workers):
    found = dict(processes.each(_fragile, [(n,) for n in range(5)], workers))
    assert found == {0: 0, 1: -1, 2: processes.DIED, 3: -3, 4: -4}
    calls = [(number,) for number in range(5)]
    assert processes.spread(_fragile, calls, 2, died="x") == [0, -1, "x", -3, -4]


def _limits(prepared, number):
    import threadpoolctl

    assert {each["num_threads"] for each in threadpoolctl.threadpool_info()} <= {1}
    return prepared + number


@pytest.mark.parametrize("spawn", [False, True])
def test_processes_are_prepared(spawn):
    prepare = functools.partial(int, 40)
    open_pool = functools.partial(processes.pool, prepare=prepare, spawn=spawn)
    assert dict(processes.each(_limits, [(1,), (2,)], 2, open_pool)) == {0: 41, 1: 42}


def test_threads_do_as_well():
    threads = concurrent.futures.ThreadPoolExecutor
    found = dict(processes.each(lambda text: text * 2, [("a",), ("b",)], 2, threads))
    assert found == {0: "aa", 1: "bb"}


def _slow(path, seconds):
    with files.atomic_path(path) as temporary:
        temporary.write_text("half")
        time.sleep(seconds)


def _fail(path):
    while not list(path.iterdir()):
        time.sleep(0.01)
    raise KeyError(path)


@pytest.mark.parametrize("how", ["closed", "error"])
def test_the_end_is_soon_and_tidy(tmp_path, how):
    """Whatever ends it: nothing goes on, and half files are cleared away."""
    begin, before = time.monotonic(), multiprocessing.active_children()
    if how == "closed":
        calls = [(tmp_path / f"{number}.txt", 60 * number) for number in range(9)]
        results = processes.each(_slow, calls, 2)
        assert next(results) == (0, None)
        while not list(tmp_path.glob(".*")):
            time.sleep(0.01)
        results.close()
    else:
        call = functools.partial(_either, tmp_path)
        with pytest.raises(KeyError):
            processes.spread(call, [("slow",), ("fail",), ("slow",)], 2)
    assert time.monotonic() - begin < 30
    assert multiprocessing.active_children() == before
    left = [path.name for path in pathlib.Path(tmp_path).iterdir()]
    assert left == (["0.txt"] if how == "closed" else [])


def _either(folder, what):
    if what == "slow":
        _slow(folder / "slow.txt", 60)
    _fail(folder)
