"""Files that are either whole or not there."""

import contextlib
import json
import os
import pathlib


@contextlib.contextmanager
def atomic_path(path):
    """Gives a temporary name to write to, and renames it when all went well.

    Args:
        path: Final path of a file or a folder.

    Yields:
        `pathlib.Path` in the same folder, with the same suffix.
    """
    path = pathlib.Path(path)
    # The suffix stays last: writers of `.keras` and audio files insist on theirs.
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        if temporary.is_file():
            temporary.unlink()


def write_json(path, content):
    """Writes JSON atomically; numbers round-trip, keys keep their order."""
    with atomic_path(path) as temporary:
        temporary.write_text(
            json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
        )


def read_json(path):
    """Reads JSON."""
    return json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
