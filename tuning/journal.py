"""What happened in a search: a file of events that is only ever appended to."""

import json
import os
import pathlib
import time

from lca_keras.base import files


class Journal:
    """Trials begun, ended and given up, one JSON object a line.

    Whoever appends or trims holds the search's lock.

    Args:
        path: File; made with the first event.
    """

    def __init__(self, path):
        self.path = pathlib.Path(path)

    def read(self):
        """Returns the list of events; a line that a kill cut short does not count."""
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return []
        whole, _, _ = content.rpartition(b"\n")
        return [json.loads(line) for line in whole.splitlines()]

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
        """Forgets a line that was cut short, and failures that ended the search.

        Args:
            max_failures: Int, failed trials in a row that end a search.
        """
        events, streak = self.read(), []
        for event in [event for event in events if event["event"] == "end"]:
            streak = [*streak, event["trial"]] if event["score"] is None else []
            if len(streak) == max_failures:
                # What was finished meanwhile is found in the folders of its trials.
                begun = [event.get("trial") in streak for event in events]
                events = events[: begun.index(True)]
                break
        text = "".join(json.dumps(event) + "\n" for event in events)
        if self.path.exists() and self.path.read_bytes() != text.encode():
            with files.atomic_path(self.path) as temporary:
                temporary.write_text(text, encoding="utf-8")
