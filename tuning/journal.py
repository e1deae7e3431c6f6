"""What the processes of a search tell each other: its events, and that they live."""

import contextlib
import itertools
import json
import os
import pathlib
import time

from lca_keras.base import files, processes
from lca_keras.base.errors import UserError

BEAT_SECONDS = 2.0
# A worker that shows no sign of life for so long is given up.
PATIENCE_SECONDS = 30.0


class Journal:
    """Trials begun, ended and given up: a file, one JSON object a line.

    Whoever appends or trims holds the search's lock.
    """

    def __init__(self, path):
        self.path = pathlib.Path(path)

    def read(self):
        """Returns the list of events; a line that a kill cut short does not count."""
        try:
            whole, _, _ = self.path.read_bytes().rpartition(b"\n")
            return [json.loads(line) for line in whole.splitlines()]
        except FileNotFoundError:
            return []
        except ValueError as error:
            said = f"{self.path} is damaged ({error}): begin anew under another --name"
            raise UserError(said) from error

    def append(self, event, **facts):
        """Adds an event, on disk when this returns; returns it as `read` gives it."""
        row = json.dumps({"event": event, **facts, "time": round(time.time(), 3)})
        with open(self.path, "a+b") as file:
            file.seek(0)
            # Another process may have been killed in the middle of a line.
            file.truncate(file.read().rfind(b"\n") + 1)
            file.write(f"{row}\n".encode())
            file.flush()
            os.fsync(file.fileno())
        return json.loads(row)

    def trim(self, max_failures):
        """Forgets a line cut short, and so many failures in a row, which ended it."""
        events, failed = self.read(), []
        for event in events:
            if event["event"] == "end":
                failed = [*failed, event["trial"]] if event["score"] is None else []
            if len(failed) == max_failures:
                # What was finished meanwhile is found in the folders of its trials.
                begun = [event["trial"] in failed for event in events]
                events = events[: begun.index(True)]
                break
        text = "".join(json.dumps(event) + "\n" for event in events)
        if self.path.exists() and self.path.read_bytes() != text.encode():
            with files.atomic_path(self.path) as temporary:
                temporary.write_text(text, encoding="utf-8")


@contextlib.contextmanager
def beating(folder, worker):
    """Shows the others that this worker lives, for as long as the context lasts."""
    path, count = pathlib.Path(folder, f"{worker}.beat"), itertools.count()

    def beat():
        with contextlib.suppress(OSError):  # The next one may succeed.
            path.write_text(f"{os.getpid()} {next(count)}")

    try:
        with processes.repeatedly(beat, BEAT_SECONDS):
            yield
    finally:
        with contextlib.suppress(OSError):
            path.unlink()


class Watch:
    """Tells workers that live from those that have died, by their signs of life."""

    def __init__(self, folder):
        self._folder, self._seen = folder, {}

    def is_dead(self, worker):
        """Whether a worker has shown no sign of life since long before."""
        # By this process's clock; other machines' may differ.
        now, beat = time.monotonic(), None
        with contextlib.suppress(OSError):
            beat = (self._folder / f"{worker}.beat").read_bytes()
        if self._seen.setdefault(worker, (beat, now))[0] != beat:
            self._seen[worker] = beat, now
        return now - self._seen[worker][1] > PATIENCE_SECONDS
