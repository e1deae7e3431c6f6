"""Results that are computed once, whoever asks for them: cells."""

import contextlib
import pathlib
import time

from lca_keras.base import files
from lca_keras.base.errors import UserError


def cell(folder, settings, compute, wait=True):
    """Something that is computed once, whoever asks for it: the scores of a training.

    Processes on all machines that share the folder, and whose file system locks files
    for all of them, may ask at the same time; one computes. A killed one leaves what it
    had in the folder, and the next one goes on there.

    Args:
        folder: Folder of the cell; gets `cell.json`.
        settings: Dict for JSON, all that decides the result (a configuration with its
            seed). What was computed here with others is deleted.
        compute: Function without arguments that returns a dict for JSON.
        wait: Whether to wait for a process that is computing this cell. If not, and
            there is one, the result is `None`.

    Raises:
        UserError: The folder holds something else.
    """
    folder, settings = pathlib.Path(folder), files.as_json(settings)
    path = folder / "cell.json"

    def result_of(cell):
        return cell.get("result") if cell.get("settings") == settings else None

    if (result := result_of(known(folder))) is not None:
        return result
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(files.lock(folder / ".lock", wait))
        except files.LockedError:
            return None
        cell = known(folder)  # Another process may have been quicker.
        if (result := result_of(cell)) is not None:
            return result
        if cell.get("settings") != settings:
            if not cell and any(not p.name.startswith(".") for p in folder.iterdir()):
                raise UserError(f"{folder} is not empty and was not made for a result")
            # What lies here is of other settings: nobody may go on from it.
            files.clear(folder, keep=(".lock",))
            files.write_json(path, {"settings": settings})
        start = time.monotonic()
        found = {"settings": settings, "result": compute()}
        seconds = round(time.monotonic() - start, 2)
        files.write_json(path, {**found, "seconds": seconds})
    return found["result"]


def known(folder):
    """What `cell.json` of a folder says, a dict; empty if there is none."""
    path = pathlib.Path(folder, "cell.json")
    try:
        return files.read_json(path)
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}): delete {folder}") from error


def cells(wanted, poll_seconds=1.0):
    """Computes many cells, and leaves those to others that these are computing.

    `wanted` is a dict from name to a tuple, the arguments of `cell` but `wait`. Yields
    tuples of a name and its result, as they come.
    """
    missing = dict(wanted)
    while missing:
        before = len(missing)
        for name, arguments in list(missing.items()):
            result = cell(*arguments, wait=False)
            if result is not None:
                del missing[name]
                yield name, result
        if missing and len(missing) == before:
            time.sleep(poll_seconds)
