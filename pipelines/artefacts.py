"""Artefacts of stages: what each has made, of what, and whether it still is so.

`ROOT/STAGE/DIGEST/` holds what a stage made and, in `cell.json`, its record. The digest
is of all that decided it: a stage whose inputs and settings have not changed finds its
folder and is skipped, also when something has changed and changed back.
"""

import dataclasses
import functools
import hashlib
import json
import pathlib
import socket
import time

from lca_keras.base import files
from lca_keras.base.config import Config
from lca_keras.base.errors import UserError
from lca_keras.base.observer import Observer
from lca_keras.data.corpus import DataSource
from lca_keras.exports import versions
from lca_keras.workflow import cells, records
from pipelines.settings import Settings

# Raised by whoever changes what a stage makes of the same settings.
_FORMAT = 2
# Not of what was made: they change while others read, or tell about the rest.
_OUTSIDE = ("cell.json", ".lock")


@dataclasses.dataclass
class Artefact:
    """What a stage has made, now or, `reused`, before."""

    stage: str
    folder: pathlib.Path
    outcome: dict  # For JSON, what the stage returned; `"verdict"` is a sentence.
    reused: bool
    seconds: float


@dataclasses.dataclass
class Workshop:
    """Where the stages of a pipeline leave their artefacts."""

    root: pathlib.Path
    config: Config
    anew: frozenset = frozenset()  # Stages that are done whatever was made before.
    fixed: frozenset = frozenset()  # Stages whose artefacts have to be there.
    observer: Observer = dataclasses.field(default_factory=Observer)
    made: list = dataclasses.field(default_factory=list)  # The `Artefact`s so far.

    def folder(self, stage, settings):
        """Folder of the artefact of a stage, whether it is there or not."""
        decided = {"format": _FORMAT, "stage": stage, **settings}
        return self.root / stage / digest(decided)

    def artefact(self, stage, settings, make, essential=("**/*",), lost=None):
        """The artefact of a stage, from before or made now.

        A stage that was killed goes on in its folder; so does one whose files were
        changed by hand.

        Args:
            settings: Dict for JSON, all that decides the outcome.
            make: Function that fills the artefact's folder, and returns the outcome.
            essential: Patterns of the files whose sums are kept.
            lost: Optional function of an outcome of before that says what of it is no
                longer so outside of the folder, or `None`.
        """
        start, folder = time.monotonic(), self.folder(stage, settings)
        settings = {"stage": stage, **settings}
        record = cells.known(folder).get("result")
        changed = record and (
            _problem(folder, record) or (lost and lost(record["outcome"]))
        )
        if changed:
            self.observer.note(f"{stage}: {folder} is not as it was left ({changed})")
        if stage in self.fixed and (changed or not record):
            raise UserError(
                f"{stage} has no artefact of these songs and settings, or not as it "
                f"was left ({folder}). Begin with it: --from {stage}, or leave --from "
                "out"
            )
        if record and (changed or stage in self.anew):
            with files.lock(folder / ".lock", wait=False):
                # The record goes first: without it there is nothing to be reused.
                files.write_json(folder / "cell.json", {"settings": settings})
                if stage in self.anew:
                    files.clear(folder, keep=_OUTSIDE)
        artefact = Artefact(stage, folder, {}, reused=True, seconds=0.0)

        def compute():
            began, artefact.reused = time.time(), False
            outcome = make(folder)
            paths = {path for pattern in essential for path in folder.glob(pattern)}
            return {
                "outcome": outcome,
                "files": {
                    path.relative_to(folder).as_posix(): files.sha256(path)
                    for path in sorted(paths)
                    if path.is_file() and path.name not in _OUTSIDE
                },
                "environment": records.environment(self.config),
                "host": socket.gethostname(),
                "began": began,
            }

        artefact.outcome = cells.cell(folder, settings, compute)["outcome"]
        artefact.seconds = time.monotonic() - start
        self.made.append(artefact)
        return artefact


@dataclasses.dataclass(kw_only=True)
class Pipeline(Workshop):
    """A workshop with what all stages share."""

    name: str
    settings: Settings
    source: DataSource
    model: pathlib.Path  # Folder of the pushed versions.
    workers: int | None  # Processes of the extraction; without it this one.

    @property
    def pushed(self):
        """Folders of the pushed versions, the newest one, which is live, first."""
        numbers = versions.versions(self.model)
        return [self.model / str(number) for number in reversed(numbers)]

    @property
    def live(self):
        """The newest one, or `None`."""
        return next(iter(self.pushed), None)

    @functools.cached_property
    def blessings(self):
        """What was pushed before, dicts in `blessed.json`, the last one last."""
        path = self.root / "blessed.json"
        return files.read_json(path) if path.exists() else []


def digest(settings):
    """Ten hexadecimal digits that tell settings apart."""
    text = json.dumps(files.as_json(settings), sort_keys=True)
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:10]


def _problem(folder, record):
    """What of an artefact is not as it was left, a sentence, or `None`."""
    for name, value in record["files"].items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if files.sha256(path) != value:
            return f"{name} has changed"
    return None
