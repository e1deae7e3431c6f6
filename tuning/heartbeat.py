"""Signs of life of the processes that work on a search."""

import contextlib
import os
import pathlib
import threading
import time

BEAT_SECONDS = 2.0
# A worker that shows no sign of life for so long is given up.
PATIENCE_SECONDS = 30.0


@contextlib.contextmanager
def beating(folder, worker):
    """Shows the others that this worker lives, for as long as the context lasts."""
    path = pathlib.Path(folder, f"{worker}.beat")
    stop = threading.Event()

    def beat():
        count = 0
        while True:
            with contextlib.suppress(OSError):
                path.write_text(f"{os.getpid()} {count}")
            count += 1
            if stop.wait(BEAT_SECONDS):
                return

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        with contextlib.suppress(OSError):
            path.unlink()


class Watch:
    """Tells workers that live from those that have died, by their heartbeats."""

    def __init__(self, folder):
        self._folder = pathlib.Path(folder)
        self._seen = {}

    def is_dead(self, worker):
        """Whether a worker has shown no sign of life since long before."""
        # By this process's clock; other machines' may differ.
        now, beat = time.monotonic(), None
        with contextlib.suppress(OSError):
            beat = (self._folder / f"{worker}.beat").read_bytes()
        before, since = self._seen.get(worker, (None, now))
        if worker not in self._seen or before != beat:
            self._seen[worker] = beat, now
            return False
        return now - since > PATIENCE_SECONDS
