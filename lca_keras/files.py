"""Files that are either whole or not there."""

import contextlib
import csv
import fcntl
import json
import os
import pathlib
import shutil
import uuid

from lca_keras.errors import UserError

# File names need not be UTF-8; as they come from the system, so they are written.
_NAMES = "surrogateescape"


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
    unique = f"{os.getpid()}-{uuid.uuid4().hex[:8]}"  # Also among containers.
    temporary = path.with_name(f".{path.stem}.{unique}.tmp{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        if temporary.is_file():
            temporary.unlink()
        shutil.rmtree(temporary, ignore_errors=True)


class LockedError(UserError):
    """Another process holds a lock."""


@contextlib.contextmanager
def lock(path, wait=True):
    """Holds a lock file; the operating system frees it when the process ends.

    Raises:
        LockedError: Another process holds it, and `wait` is false.
    """
    with open(path, "w", encoding="ascii") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError as error:
            folder = pathlib.Path(path).parent
            raise LockedError(f"{folder}: another process is at work here") from error
        yield


def clear(folder, keep=()):
    """Deletes what is in a folder, but for the names in `keep`."""
    for path in pathlib.Path(folder).iterdir():
        if path.name not in keep:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def write_json(path, content):
    """Writes JSON atomically; numbers round-trip, keys keep their order."""
    with atomic_path(path) as temporary:
        temporary.write_text(
            json.dumps(content, indent=2, ensure_ascii=False) + "\n",
            encoding="utf-8",
            errors=_NAMES,
        )


def as_json(content):
    """Returns content as `read_json` would give it back: no tuples, string keys."""
    return json.loads(json.dumps(content))


def read_json(path):
    """Reads JSON."""
    return json.loads(pathlib.Path(path).read_text(encoding="utf-8", errors=_NAMES))


def read_csv(path, columns=()):
    """Reads a CSV with a header; UTF-8, a byte order mark is allowed.

    `columns` are names that the header must have, and every row a value for. Returns
    a list of dicts, one a row.

    Raises:
        UserError: The file cannot be read or lacks columns.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            missing = sorted(set(columns) - set(reader.fieldnames or ()))
            if missing:
                raise UserError(
                    f"{path}: columns {missing} are missing; expected {list(columns)}"
                )
            rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: cannot be read as CSV ({error})") from error
    for number, row in enumerate(rows, start=2):
        if any(row[column] is None for column in columns):
            raise UserError(f"{path}, line {number}: too few fields")
    return rows


def write_csv(path, columns, rows):
    """Writes CSV atomically; rows are lists, or dicts of which some values may lack."""
    with (
        atomic_path(path) as temporary,
        open(temporary, "w", encoding="utf-8", errors=_NAMES, newline="") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(columns)
        for row in rows:
            if isinstance(row, dict):
                row = [row.get(column, "") for column in columns]
            writer.writerow(row)
