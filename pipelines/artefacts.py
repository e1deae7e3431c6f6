"""Artefacts of stages: what each has made, of what, and whether it still is so.

`ROOT/STAGE/DIGEST/` holds what a stage made and, in `cell.json`, its record: all that
decided it, the sums of its files, versions, time and host. The digest is of what
decided it: a stage whose inputs and settings have not changed finds its folder and is
skipped, also when something has changed and changed back.
"""

import dataclasses
import functools
import hashlib
import json
import pathlib
import socket
import time

from lca_keras.base import files
from lca_keras.base.errors import UserError
from lca_keras.base.observer import Observer
from lca_keras.data.corpus import DataSource
from lca_keras.workflow import cells, records
from pipelines.settings import Settings

# Raised by whoever changes what a stage makes of the same settings.
_FORMAT = 2
# Not of what was made: they change while others read, or tell about the rest.
_OUTSIDE = ("cell.json", ".lock")


@dataclasses.dataclass
class Artefact:
    """What a stage has made.

    Attributes:
        stage: Name of the stage.
        folder: `pathlib.Path`.
        outcome: Dict for JSON, what the stage returned; `"verdict"` is a sentence.
        reused: Whether it was made before.
        seconds: Time that this call took.
    """

    stage: str
    folder: pathlib.Path
    outcome: dict
    reused: bool
    seconds: float


@dataclasses.dataclass
class Workshop:
    """Where the stages of a pipeline leave their artefacts.

    Attributes:
        root: Folder of all artefacts of one pipeline.
        config: `lca_keras.base.config.Config`.
        anew: Names of stages that are done whatever was made before.
        fixed: Names of stages that are not done: their artefacts have to be there.
        observer: `lca_keras.base.observer.Observer` of the stages.
        made: List of the `Artefact`s so far.
    """

    root: pathlib.Path
    config: object
    anew: frozenset = frozenset()
    fixed: frozenset = frozenset()
    observer: Observer = dataclasses.field(default_factory=Observer)
    made: list = dataclasses.field(default_factory=list)

    def folder(self, stage, settings):
        """Folder of the artefact of a stage, whether it is there or not."""
        settings = {"format": _FORMAT, "stage": stage, **settings}
        return self.root / stage / digest(settings)

    def artefact(self, stage, settings, make, essential=("**/*",), lost=None):
        """The artefact of a stage, from before or made now.

        A stage that was killed goes on in its folder; so does one whose files were
        changed by hand.

        Args:
            stage: Name of the stage.
            settings: Dict for JSON, all that decides the outcome.
            make: Function of the artefact's folder that fills it, and returns the
                outcome, a dict for JSON.
            essential: Patterns of the files whose sums are kept.
            lost: Optional function of an outcome of before that says what of it is no
                longer so outside of the folder, or `None`.

        Returns:
            `Artefact`.

        Raises:
            UserError: The stage is fixed and its artefact is not there; or its own.
        """
        start = time.monotonic()
        folder = self.folder(stage, settings)
        settings = {"stage": stage, **settings}
        record = cells.known(folder).get("result")
        changed = record and (
            problem(folder, record) or (lost and lost(record["outcome"]))
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
        done_now = []

        def compute():
            began = time.time()
            outcome = make(folder)
            done_now.append(stage)
            return {
                "outcome": outcome,
                "files": sums(folder, essential),
                "environment": records.environment(self.config),
                "host": socket.gethostname(),
                "began": began,
            }

        outcome = cells.cell(folder, settings, compute)["outcome"]
        took = time.monotonic() - start
        self.made.append(Artefact(stage, folder, outcome, not done_now, took))
        return self.made[-1]


@dataclasses.dataclass(kw_only=True)
class Pipeline(Workshop):
    """A workshop with what all stages share.

    Attributes:
        name: Name of the model.
        settings: `pipelines.settings.Settings`.
        source: `lca_keras.data.corpus.DataSource`.
        exports: Folder of all exports.
        workers: Processes of the extraction; by default it is this one.
    """

    name: str
    settings: Settings
    source: DataSource
    exports: pathlib.Path
    workers: int | None = None

    @property
    def model(self):
        """Folder of the pushed versions."""
        return pathlib.Path(self.exports, self.name)

    @property
    def blessed(self):
        """File that keeps `blessings`."""
        return self.root / "blessed.json"

    @functools.cached_property
    def blessings(self):
        """What was pushed before, a list of dicts, the last one last."""
        return files.read_json(self.blessed) if self.blessed.exists() else []


def digest(settings):
    """Ten hexadecimal digits that tell settings apart."""
    text = json.dumps(files.as_json(settings), sort_keys=True)
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:10]


def sums(folder, patterns):
    """Dict from the names of an artefact's files that fit to their SHA-256 sums."""
    folder = pathlib.Path(folder)
    paths = {path for pattern in patterns for path in folder.glob(pattern)}
    return {
        path.relative_to(folder).as_posix(): files.sha256(path)
        for path in sorted(paths)
        if path.is_file() and path.name not in _OUTSIDE
    }


def problem(folder, record):
    """What of an artefact is not as it was left, a sentence, or `None`."""
    for name, value in record["files"].items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if files.sha256(path) != value:
            return f"{name} has changed"
    return None
