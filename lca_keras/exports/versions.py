"""Versions of exported models: pushed in one rename, found, rolled back, pruned.

`saved_models/<name>/<version>/`, versions counting up. The newest one is live for
whoever polls the folder, and never half there, neither when it comes nor when it goes.
A version's files never change: to roll back is to push an older one again.
"""

import contextlib
import datetime
import fcntl
import itertools
import os
import pathlib
import shutil
import socket
import tempfile
import time

from lca_keras.base import files
from lca_keras.base.errors import UserError
from lca_keras.exports import integrity

METADATA = "lca_keras.json"
# A server may still be loading a version that another one has just followed.
GRACE_SECONDS = 60.0


# === Found ===


def versions(folder):
    """Returns the version numbers in a model's folder, ascending."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        return sorted(int(name) for name in os.listdir(folder) if name.isdecimal())
    return []


def find_version(folder, version=None):
    """Returns the folder of a version of a model, the newest by default.

    `folder` may be `saved_models/NAME`, or a version's own folder. What is not there is
    a `UserError`.
    """
    folder = pathlib.Path(folder)
    if version is None and (folder / "saved_model.pb").exists():
        return folder
    available = versions(folder)
    if not available and (folder / "metrics.json").exists():
        exported = files.read_json(folder / "metrics.json").get("export")
        raise UserError(f"{folder} is a run; its exported model is {exported}")
    inside = [p for p in sorted(folder.glob("*")) if versions(p)]
    if not available and len(inside) == 1:
        raise UserError(f"{folder}: no exported model, but there is one in {inside[0]}")
    if not available:
        raise UserError(
            f"{folder}: no exported model. Expected saved_models/NAME, as printed at "
            "the end of `python -m lca_keras.fit`."
        )
    if version is not None and version not in available:
        raise UserError(f"{folder}: no version {version}; available: {available}")
    return folder / str(version or available[-1])


def history_of(folder):
    """When and from where a version was pushed; of what something else put, nothing."""
    with contextlib.suppress(OSError, ValueError):
        return files.read_json(pathlib.Path(folder, integrity.PUSHED))
    return {}


# === Pushed ===


@contextlib.contextmanager
def staging(folder):
    """Yields an empty folder to export to; deletes it if it was not published.

    What processes that were killed have left of theirs is deleted too.
    """
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        with files.lock(folder / ".lock"):
            _clear_abandoned(folder)
            # Within `folder`, for the rename; servers pass over names that are no
            # numbers.
            temporary = pathlib.Path(tempfile.mkdtemp(prefix=".export-", dir=folder))
            stack.callback(shutil.rmtree, temporary, ignore_errors=True)
            # The lock on the folder itself says that its process is alive.
            handle = os.open(temporary, os.O_RDONLY)
            stack.callback(os.close, handle)
            fcntl.flock(handle, fcntl.LOCK_EX)
        os.chmod(temporary, 0o755)  # mkdtemp's folder is for its owner alone.
        yield temporary


def _clear_abandoned(folder):
    """Deletes folders of exports and prunings whose processes are gone."""
    for pattern in (".export-*", ".pruned-*"):
        for path in folder.glob(pattern):
            with contextlib.suppress(OSError):  # Another one's, or gone meanwhile.
                handle = os.open(path, os.O_RDONLY)
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(path)
                finally:
                    os.close(handle)


def publish(temporary, folder, about=None):
    """Gives a finished export from `staging` the next free number; returns its path.

    Its files are on the disk before it appears. `about` says where it comes from.
    """
    folder = pathlib.Path(folder)
    now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    origin = {"pushed": now, "host": socket.gethostname(), **(about or {})}
    files.write_json(pathlib.Path(temporary, integrity.PUSHED), origin)
    for path in (temporary, *pathlib.Path(temporary).rglob("*")):
        files.sync(path)
    while True:
        number = max(versions(folder), default=0) + 1
        try:
            os.rename(temporary, folder / str(number))
        except OSError:
            if not (folder / str(number)).exists():
                raise
            continue  # Another process took the number meanwhile.
        files.sync(folder)
        return folder / str(number)


def push(source, folder, about=None):
    """Copies a version's folder to the next version of a model; returns its path.

    `folder`, that of the model, may be of any file system. A source that was changed
    since it was exported is a `UserError`; then, and of a full disk, nothing appears.
    """
    integrity.check(source)
    with staging(folder) as temporary:
        shutil.copytree(source, temporary, dirs_exist_ok=True)
        integrity.check(temporary)  # The copy is read back.
        origin = {"from": os.path.abspath(source), **(about or {})}
        return publish(temporary, folder, origin)


def roll_back(folder, version=None):
    """Pushes an older version again, by default the one before the live one.

    After a roll-back the one before is that of what was restored: rolling back twice
    goes back two steps. Returns the path of the new version, and the number of the one
    that it equals; without one to go back to, a `UserError`.
    """
    found = find_version(folder)
    if version is None:
        live, original = int(found.name), history_of(found).get("restored")
        numbers = versions(folder)
        older = [number for number in numbers if number < (original or live)]
        if not older:
            others = ", ".join(str(number) for number in numbers if number != live)
            name = f"what version {original} was" if original else "it"
            which = f". To take another, say which: {others}" if others else ""
            raise UserError(
                f"{folder}: version {live} is live, and nothing older than {name} is "
                f"left{which}"
            )
        version = older[-1]
    source = find_version(folder, version)
    # What it was restored from, should that be a copy itself.
    restored = history_of(source).get("restored", version)
    return push(source, folder, {"restored": restored}), version


def prune(folder, keep, spare=(), grace=GRACE_SECONDS):
    """Deletes the oldest versions of a model but `keep`.

    Never the newest one, nor those of `spare`, nor one that was the newest within the
    last `grace` seconds: somebody may be loading it. Returns two lists of numbers: of
    those deleted, and of old ones spared.
    """
    if keep < 1:
        raise ValueError(f"`keep` must be at least 1. Received: keep={keep}")
    folder = pathlib.Path(folder)
    deleted, spared = [], []
    with files.lock(folder / ".lock"):
        numbers = versions(folder)
        old = max(0, len(numbers) - keep)
        for number, successor in itertools.islice(itertools.pairwise(numbers), old):
            # `pushed.json` is the last file written; a copy may have older ones.
            last = folder / str(successor) / integrity.PUSHED
            last = last if last.exists() else last.parent
            age = time.time() - last.stat().st_mtime
            if number in spare or age < grace:
                spared.append(number)
                continue
            gone = pathlib.Path(tempfile.mkdtemp(prefix=".pruned-", dir=folder))
            os.rename(folder / str(number), gone / str(number))
            shutil.rmtree(gone)
            deleted.append(number)
    return deleted, spared


# === In object stores ===


def push_to_store(source, place):
    """Copies a version's folder to the next version of a model in an object store.

    Returns the address of the version; that of the model is `place`, such as
    `gs://bucket/models/name`, of any of TensorFlow's file systems. Such a store renames
    nothing at once. So the files come one by one, that which a server looks for last:
    it takes a folder without it for no version. Two processes must not push one model
    there at the same time: nothing in such a store could keep them apart.
    """
    import tensorflow as tf

    integrity.check(source)
    source, place = pathlib.Path(source), str(place).rstrip("/")
    names = [p.relative_to(source).as_posix() for p in source.rglob("*") if p.is_file()]
    names.sort(key=lambda name: (name == "saved_model.pb", name))
    try:
        target = f"{place}/{max(versions_in_store(place), default=0) + 1}"
        for name in names:
            copy = f"{target}/{name}"
            tf.io.gfile.makedirs(copy.rpartition("/")[0])
            tf.io.gfile.copy(str(source / name), copy, overwrite=True)
    except tf.errors.OpError as error:
        raise UserError(f"{place}: cannot be pushed to ({error.message})") from error
    return target


def versions_in_store(place):
    """Version numbers of a model in an object store, ascending."""
    import tensorflow as tf

    if not tf.io.gfile.isdir(place):
        return []
    names = (name.strip("/") for name in tf.io.gfile.listdir(place))
    return sorted(int(name) for name in names if name.isdecimal())
