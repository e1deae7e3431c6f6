"""A search in its folder, which any number of processes work on.

There is no chief: under a lock, a process reads what the others have written to the
journal, asks its own oracle for the next trial, and writes down that it has it. So a
process may come late, die or be killed at any moment, on any machine that sees the
folder and whose file system locks files for all machines.
"""

import contextlib
import dataclasses
import hashlib
import itertools
import json
import os
import pathlib
import shutil
import socket
import time

from lca_keras.base import files
from lca_keras.base.config import Config
from lca_keras.base.errors import UserError
from lca_keras.data import corpus
from tuning import oracle as oracles
from tuning import space as spaces
from tuning.journal import Journal, Watch

POLL_SECONDS = 0.5
DEFAULT_TRIALS = 20


@dataclasses.dataclass(frozen=True)
class Search:
    """What decides a search; `search.json` in its folder."""

    algorithm: str
    trials: int | None  # At most; without, as many as the algorithm wants.
    seeds: int  # Trainings a trial.
    space: dict  # As JSON, as `config`.
    config: dict  # Of all trials.

    @classmethod
    def load(cls, folder):
        """Reads the search of a folder, or raises a `UserError`."""
        return _read(folder, "search.json", cls)

    @property
    def base(self):
        """`Config` that all trials share."""
        return Config.from_dict(self.config)


def _read(folder, name, kind):
    try:
        return kind(**files.read_json(pathlib.Path(folder, name)))
    except (OSError, ValueError, TypeError) as error:
        raise UserError(
            f"{folder} is not the folder of a search of this version ({error})"
        ) from error


def open_folder(folder, search):
    """Makes the folder of a `Search`, or checks that it is the folder of this one.

    Its `trials` may be `None`: as many as before, the default, all of a grid.
    """
    folder = pathlib.Path(folder)
    path = folder / "search.json"
    folder.mkdir(parents=True, exist_ok=True)
    # One look: others may be making it. What is hidden is theirs, locks for instance.
    names = {name for name in os.listdir(folder) if not name.startswith(".")}
    if names and path.name not in names:
        raise UserError(f"{folder} is not empty and holds no search: choose a new name")
    with files.lock(folder / ".lock"):
        wanted = files.as_json(dataclasses.asdict(search))
        if path.exists():
            known = Search.load(folder)
            events = Journal(folder / "events.jsonl").read()
            changed = _changes(known, search)
            if changed and events:
                raise UserError(
                    f"{folder} holds another search: {changed}. Choose "
                    "another --name, or repeat the options of that search."
                )
            if changed:  # Nothing came of it yet: no data, perhaps.
                for lock in (folder / "workers").glob(".*.lock"):
                    with files.lock(lock, wait=False):
                        pass  # Its process is gone.
                for name in ("search.json", "corpus.json", "split.csv", "source.json"):
                    (folder / name).unlink(missing_ok=True)
                shutil.rmtree(folder / "warmup", ignore_errors=True)
            elif wanted["trials"] is None:
                wanted["trials"] = known.trials  # As many as it was begun with.
            begun = len({e["trial"] for e in events if e["event"] == "start"})
            if wanted["trials"] is not None and wanted["trials"] < begun:
                raise UserError(
                    f"--trials {wanted['trials']}: the search in {folder} has begun "
                    f"{begun} already; give as many, more, or leave the option out"
                )
        if wanted["trials"] is None and search.algorithm not in ("hyperband", "grid"):
            wanted["trials"] = DEFAULT_TRIALS
        files.write_json(path, wanted)


def _changes(known, wanted):
    """What differs between two `Search`es, but for the number of trials, in words."""

    def told(search):  # Fields that a configuration did not have yet are the defaults.
        every = dataclasses.asdict(search) | {"config": search.base.to_dict()}
        return files.as_json({**every, "trials": 0})

    return "; ".join(_differences(told(known), told(wanted)))


def _differences(known, wanted, where=""):
    for name in sorted(known | wanted):
        before, now = known.get(name), wanted.get(name)
        if isinstance(before, dict) and isinstance(now, dict):
            yield from _differences(before, now, f"{where}{name}.")
        elif before != now:
            yield f"{where}{name} was {before!r}, now {now!r}"


def keep_source(folder, search, source):
    """Notes where the data was, for the report; raises if another search began here."""
    if changed := _changes(Search.load(folder), search):
        raise UserError(f"{folder} was begun anew meanwhile: {changed}")
    files.write_json(folder / "source.json", dataclasses.asdict(source.absolute()))


def load_source(folder):
    """Reads what `keep_source` wrote."""
    return _read(folder, "source.json", corpus.DataSource)


def divide(folder, search, songs):
    """The `Division` of a search's songs, which all its processes have to find."""
    hashes = [[s.key, songs.store.records[s.key].content_hash] for s in songs.songs]
    identity = {"songs": hashlib.sha256(json.dumps(hashes).encode()).hexdigest()}
    with files.lock(folder / ".split.lock"):
        known = folder / "corpus.json"
        if known.exists() and files.read_json(known) != identity:
            raise UserError(
                f"the songs are not those that the search in {folder} was begun with: "
                "choose another --name, or give it the same songs"
            )
        division = corpus.divide(search.base, songs, folder)
        corpus.keep_split(folder, songs, division)
        files.write_json(known, identity)
    return division


@contextlib.contextmanager
def worker_name(folder, name=None):
    """Holds and yields a name that no other process of the search has at the moment.

    By default the lowest number of this machine that is free: who starts again after
    a kill has the name, and thus the trial, from before.
    """
    workers = pathlib.Path(folder, "workers")
    workers.mkdir(exist_ok=True)
    numbered = (f"{socket.gethostname()}-{number}" for number in itertools.count(1))
    with contextlib.ExitStack() as stack:
        for each in numbered if name is None else [name]:
            try:
                stack.enter_context(files.lock(workers / f".{each}.lock", wait=False))
            except files.LockedError:
                continue
            yield each
            return
    raise UserError(f"--worker {name}: another process of this search has that name")


class Study:
    """One process's part in a search: `ask` for a trial, `tell` what came out.

    `on_event` is called with every event, and whether it is from before this process.
    """

    def __init__(self, folder, worker, on_event=None):
        self.folder, self.worker = pathlib.Path(folder), worker
        self.journal = Journal(self.folder / "events.jsonl")
        self._on_event = on_event or (lambda event, past: None)
        self._watch = Watch(self.folder / "workers")
        self._oracle, self._events, self._told = None, [], 0
        with files.lock(self.folder / ".lock"):
            self.journal.trim(oracles.MAX_FAILURES)
            self._catch_up(past=True)

    def ask(self):
        """Returns the next KerasTuner trial, or `None` when the search is over.

        Waits while other processes have what is left: one of them may die.
        """
        while True:
            with files.lock(self.folder / ".lock"):
                self._catch_up()
                for worker in set(self._oracle.ongoing_trials) - {self.worker}:
                    if self._watch.is_dead(worker):
                        event = {"event": "abandon", "worker": worker}
                        event["trial"] = self._oracle.ongoing_trials[worker].trial_id
                        oracles.apply(self._oracle, event)
                        self._write(**event)
                if self._oracle.fatal:
                    raise UserError(
                        f"the search has stopped, for {oracles.MAX_FAILURES} trials "
                        f"failed in a row; the last: {self._oracle.fatal} Mend this "
                        "and run the same command again: failed trials are tried once "
                        "more."
                    )
                known = set(self._oracle.ongoing_trials)
                trial = self._oracle.create_trial(self.worker)
                if trial.status == "RUNNING" and self.worker not in known:
                    values = trial.hyperparameters.values
                    facts = {"trial": trial.trial_id, "worker": self.worker}
                    self._write("start", **facts, values=values)
            if trial.status == "RUNNING":
                return trial
            if trial.status == "STOPPED":
                return None
            time.sleep(POLL_SECONDS)

    def tell(self, trial, score, reason=None):
        """Writes a trial's score down, or `None` and the reason of a failure."""
        values = trial.hyperparameters.values
        with files.lock(self.folder / ".lock"):
            self._catch_up()
            known = self._oracle.trials.get(trial.trial_id)
            if known is None or known.hyperparameters.values != values:
                return  # Failures were forgotten meanwhile, and this trial with them.
            if trial.trial_id in self._oracle.end_order:
                return  # This process was given up, and another one was quicker.
            event = {"event": "end", "trial": trial.trial_id}
            event |= {"score": score, "message": reason}
            oracles.apply(self._oracle, event)
            self._write(**event)

    def _write(self, event, **facts):
        """Notes what has just happened to this process's own oracle."""
        try:
            self._events.append(self.journal.append(event, **facts))
        except OSError as error:
            raise UserError(
                f"{self.journal.path} cannot be written: {error.strerror}"
            ) from error
        self._tell(past=False)

    def _tell(self, past):
        """Passes on the events that have not been passed on yet."""
        for event in self._events[self._told :]:
            self._on_event(event, past)
        self._told = max(self._told, len(self._events))

    def _catch_up(self, past=False):
        """Takes in what other processes have written."""
        events, search = self.journal.read(), Search.load(self.folder)
        if self._oracle is None or events[: len(self._events)] != self._events:
            # Another process has forgotten failures: from the beginning.
            pairs = zip(events, self._events, strict=False)
            same = [event == known for event, known in pairs]
            self._told = [*same, False].index(False)
            space, config = spaces.from_json(search.space), search.base
            epochs = config.train.epochs - spaces.longest_warmup(space, config)
            numbers = (search.trials, epochs, config.train.seed)
            self._oracle = oracles.make_oracle(search.algorithm, space, *numbers)
            self._events = []
        self._oracle.most_trials = search.trials  # It may have been lengthened.
        for event in events[len(self._events) :]:
            oracles.apply(self._oracle, event)
        self._events = events
        self._tell(past)
