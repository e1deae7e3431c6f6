"""Versions of exported models: published in one rename, found, and pruned.

`saved_models/<name>/<version>/`, versions counting up. A server that polls a model's
folder never sees half a version, neither when it comes nor when it goes.
"""

import contextlib
import os
import pathlib
import shutil
import tempfile
import uuid

from lca_keras import files
from lca_keras.errors import UserError

METADATA = "lca_keras.json"


@contextlib.contextmanager
def staging(folder):
    """Yields an empty folder to export to; deletes it if it was not published.

    Raises:
        OSError: The model's folder cannot be written to.
    """
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    # Within `folder`, for the rename; servers pass over names that are no numbers.
    temporary = pathlib.Path(tempfile.mkdtemp(prefix=".export-", dir=folder))
    try:
        os.chmod(temporary, 0o755)  # mkdtemp's folder is for its owner alone.
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def publish(temporary, folder):
    """Renames a finished export to the next free number; returns its path."""
    folder = pathlib.Path(folder)
    while True:
        number = max(versions(folder), default=0) + 1
        try:
            os.rename(temporary, folder / str(number))
        except OSError:
            if not (folder / str(number)).exists():
                raise
            continue  # Another process took the number meanwhile.
        return folder / str(number)


def prune(folder, keep):
    """Deletes the oldest versions of a model but `keep`; returns their numbers.

    Raises:
        ValueError: `keep` is below 1.
    """
    if keep < 1:
        raise ValueError(f"`keep` must be at least 1. Received: keep={keep}")
    old = versions(folder)[:-keep]
    for number in old:
        gone = pathlib.Path(folder, f".pruned-{number}-{uuid.uuid4().hex[:8]}")
        os.rename(pathlib.Path(folder, str(number)), gone)
        shutil.rmtree(gone)
    return old


def versions(folder):
    """Returns the version numbers in a model's folder, ascending."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        return sorted(int(name) for name in os.listdir(folder) if name.isdecimal())
    return []


def find_version(folder, version=None):
    """Returns the folder of a version of a model, the newest by default.

    `folder` may be `saved_models/NAME`, or a version's own folder.

    Raises:
        UserError: There is no such model or version.
    """
    folder = pathlib.Path(folder)
    if version is None and (folder / "saved_model.pb").exists():
        return folder
    available = versions(folder)
    if not available and (folder / "metrics.json").exists():
        exported = files.read_json(folder / "metrics.json").get("export")
        raise UserError(f"{folder} is a run; its exported model is {exported}")
    if not available:
        raise UserError(
            f"{folder}: no exported model. Expected saved_models/NAME, as printed at "
            "the end of `python -m lca_keras.fit`."
        )
    if version is not None and version not in available:
        raise UserError(f"{folder}: no version {version}; available: {available}")
    return folder / str(version or available[-1])
