"""Work in several processes, and locks: what those that are killed leave behind."""

import re
import signal
import subprocess
import sys
import time

import pytest

from lca_keras.base import files

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


def test_whoever_waits_says_for_whom(holder, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(files, "_SOON_SECONDS", 0.1)
    process = holder("alone", 2)
    named = rf"^place: another process is at work here \(process {process.pid} on .+\)$"
    with pytest.raises(files.LockedError, match=named):
        files.lock("place/.lock", wait=False).__enter__()
    with files.lock("place/.lock"):
        pass
    assert not (tmp_path / "place/.lock").stat().st_size
    said = capfd.readouterr().err
    assert re.search(rf"note: waiting, place: .*process {process.pid} on", said)


def test_who_waits_for_a_moment_says_nothing(holder, capfd):
    holder("alone", 1)
    with files.lock("place/.lock"):
        pass
    assert capfd.readouterr().err == ""
