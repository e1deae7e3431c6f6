"""Files: whole or not there, locked, hashed; JSON, CSV and YAML."""

import codecs
import contextlib
import csv
import errno
import fcntl
import hashlib
import io
import json
import logging
import os
import pathlib
import shutil
import socket
import stat
import threading
import uuid

import yaml

from lca_keras.base.errors import UserError

# File names need not be UTF-8; as they come from the system, so they are written.
_NAMES = "surrogateescape"
# Seconds of waiting for a lock that nobody need be told of.
_SOON_SECONDS = 10.0


@contextlib.contextmanager
def atomic_path(path, parents=False):
    """Gives a name in the same folder to write to, and renames it when all went well.

    A file or a folder of the same suffix; `parents` makes the folders above.
    """
    path = pathlib.Path(path)
    if parents:
        path.parent.mkdir(parents=True, exist_ok=True)
    # The suffix stays last: writers of `.keras` and audio files insist on theirs.
    unique = f"{os.getpid()}-{uuid.uuid4().hex[:8]}"  # Also among containers.
    temporary = path.with_name(f".{path.stem}.{unique}.tmp{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        if error.filename is None:  # A full disk does not say which it is.
            raise type(error)(error.errno, error.strerror, str(path)) from error
        raise
    finally:
        if temporary.is_file():
            temporary.unlink()
        shutil.rmtree(temporary, ignore_errors=True)


def sha256(path):
    """SHA-256 sum of a regular file's content, as `sha256sum` prints it."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    hasher = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            hasher.update(block)
    return hasher.hexdigest()


def stamp(path):
    """What changes when a file does, its size and time; empty if it is not there."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return ""
    return f"{status.st_size} bytes, {status.st_mtime_ns}"


class LockedError(UserError):
    """Another process holds a lock."""


@contextlib.contextmanager
def lock(path, wait=True):
    """Holds a lock file; the operating system frees it when the process ends.

    Whoever has to wait for long says so, or raises `LockedError` if `wait` is false.
    """
    # Not truncated: it says who holds it.
    with open(path, "ab+", buffering=0) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            said = f"{pathlib.Path(path).parent}: another process is at work here"
            file.seek(0)
            if holder := file.read().decode("utf-8", "replace"):
                said += f" ({holder})"
            if not wait:
                raise LockedError(said) from error
            log = logging.getLogger(__name__)
            log.setLevel(logging.WARNING)  # Beam is kept quiet by the root's level.
            late = threading.Timer(
                _SOON_SECONDS, log.warning, [f"note: waiting, {said}"]
            )
            late.daemon = True
            late.start()
            try:
                fcntl.flock(file, fcntl.LOCK_EX)
            finally:
                late.cancel()
        with contextlib.suppress(OSError):  # On a full disk it holds all the same.
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}".encode())
        try:
            yield
        finally:  # Whoever did the work, folders are the same.
            file.truncate(0)


def sync(path):
    """Brings a file, or the list of names of a folder, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


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
    """Content as `read_json` would give it back: no tuples, string keys."""
    return json.loads(json.dumps(content))


def read_json(path):
    """Reads JSON."""
    return json.loads(pathlib.Path(path).read_text(encoding="utf-8", errors=_NAMES))


class Row(dict):
    """A line of a CSV, by column; `line` is its number in the file."""

    def __init__(self, line, values):
        super().__init__(values)
        self.line = line


def read_csv(path, columns=()):
    """Reads a CSV with a header: a list of `Row`; a value that a row lacks is `None`.

    It is in UTF-8 or, with a byte order mark, UTF-16; commas, semicolons or tabs part
    its fields. The header must have `columns`, and every row a value for each. Raises a
    `UserError`, for a row that was perhaps meant otherwise too.
    """
    text = _text_of(path)
    fewest = None
    for delimiter in ",;\t":  # The first that gives the header its columns.
        reader = csv.reader(io.StringIO(text, ""), delimiter=delimiter, strict=True)
        rows = _rows(path, reader)
        _, header = next(rows, (1, []))
        header = [name.strip() for name in header]
        missing = sorted(set(columns) - set(header))
        if not missing:
            break
        fewest = min(fewest or missing, missing, key=len)
    else:
        raise UserError(
            f"{path}: columns {fewest} are missing; expected {list(columns)}"
        )
    if len(set(header)) < len(header):
        raise UserError(f"{path}: the header has a column twice: {', '.join(header)}")
    result = []
    for line, fields in rows:
        where = f"{path}, line {line}"
        if len(fields) > len(header):
            raise UserError(
                f"{where}: {len(fields)} fields, the header has {len(header)}. Put "
                f'names that hold {delimiter!r} into quotes, "like this".'
            )
        row = dict.fromkeys(header) | dict(zip(header, fields, strict=False))
        if any(row[column] is None for column in columns):
            raise UserError(f"{where}: too few fields")
        result.append(Row(line, row))
    return result


def _rows(path, reader):
    """Yields the line that a row begins in, and its fields; without empty rows."""
    while True:
        line = reader.line_num + 1
        try:
            fields = next(reader, None)
        except csv.Error as error:
            raise UserError(
                f"{path}, line {line}: cannot be read as CSV ({error}). Is a quote "
                "open?"
            ) from error
        if fields is None:
            return
        if any("\n" in field or "\r" in field for field in fields):
            raise UserError(
                f"{path}, line {line}: a field ends in line {reader.line_num}. Is a "
                "quote open?"
            )
        if any(field.strip() for field in fields):
            yield line, fields


def _text_of(path):
    """The text of a file, in UTF-8 or UTF-16."""
    try:
        content = pathlib.Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    marks = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    encoding = "utf-16" if content.startswith(marks) else "utf-8-sig"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        line = 1 + content[: error.start].count(b"\n")
        raise UserError(
            f"{path}, line {line}: cannot be read as CSV ({error.reason}). Save it as "
            "UTF-8."
        ) from error
    if "\0" in text:
        raise UserError(f"{path}: holds zero bytes, so it is no text in UTF-8")
    return text


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


class _Loader(yaml.SafeLoader):
    """Safe, and a key that stands twice in a mapping is an error."""

    def construct_mapping(self, node, deep=False):
        seen = {}
        for key, _ in node.value:
            line, name = key.start_mark.line + 1, (key.tag, str(key.value))
            if isinstance(key, yaml.ScalarNode) and name in seen:
                raise UserError(
                    f"line {line}: {key.value!r} stands twice, in line {seen[name]} too"
                )
            seen[name] = line
        return super().construct_mapping(node, deep)


@contextlib.contextmanager
def yaml_content(path, kind, error):
    """Gives what is in a YAML file, a dict; names the file in what goes wrong.

    `kind` says what it is, such as `"config"`. Raises `error`, a subclass of
    `UserError`, where the file cannot be used, has a key twice say; and what the
    caller raises about it, in the class that it has.
    """
    try:
        raw = yaml.load(pathlib.Path(path).read_text(encoding="utf-8"), _Loader)
    except OSError as failed:
        raise error(f"cannot read {kind} {path}: {failed.strerror}") from failed
    except UserError as failed:
        raise error(f"{kind} {path}, {failed}") from failed
    except (yaml.YAMLError, UnicodeDecodeError) as failed:
        raise error(f"{kind} {path} is not YAML: {failed}") from failed
    if not isinstance(raw, dict):
        raise error(f"{kind} {path}: expected names with values, received {raw!r}")
    try:
        yield raw
    except UserError as failed:
        raise type(failed)(f"{kind} {path}: {failed}") from failed
