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
from tuning.heartbeat import Watch
from tuning.journal import Journal

POLL_SECONDS = 0.5
DEFAULT_TRIALS = 20


@dataclasses.dataclass(frozen=True)
class Search:
    """What decides a search; `search.json` in its folder.

    Attributes:
        algorithm: One of KerasTuner's.
        trials: Most trials, or `None` for as many as the algorithm wants.
        seeds: Trainings a trial, of different seeds.
        space: Dict of the search space, as JSON.
        config: Dict of the configuration that all trials share.
    """

    algorithm: str
    trials: int | None
    seeds: int
    space: dict
    config: dict

    @classmethod
    def load(cls, folder):
        """Reads the search of a folder.

        Raises:
            UserError: It is not the folder of a search.
        """
        try:
            return cls(**files.read_json(pathlib.Path(folder, "search.json")))
        except (OSError, ValueError, TypeError) as error:
            raise UserError(
                f"{folder} is not the folder of a search of this version ({error})"
            ) from error

    @property
    def base(self):
        """`lca_keras.base.config.Config` that all trials share."""
        return Config.from_dict(self.config)

    @property
    def objective(self):
        """Validation score that is searched for."""
        return self.config["train"]["objective"]


def open_folder(folder, search):
    """Makes the folder of a `Search`, or checks that it is the folder of this one.

    Its `trials` may be `None`: as many as before, the default, all of a grid.

    Raises:
        UserError: The folder holds another search, or something else.
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
            if changed:
                _begin_anew(folder)  # Nothing came of it yet: no data, perhaps.
            elif wanted["trials"] is None:
                wanted["trials"] = known.trials  # As many as it was begun with.
            begun = len({e["trial"] for e in events if e["event"] == "start"})
            if wanted["trials"] is not None and wanted["trials"] < begun:
                raise UserError(
                    f"--trials {wanted['trials']}: the search in {folder} has begun "
                    f"{begun} already; give as many, more, or leave the option out"
                )
        if wanted["trials"] is None and search.algorithm in ("bayesian", "random"):
            wanted["trials"] = DEFAULT_TRIALS
        files.write_json(path, wanted)


def _changes(known, wanted):
    """What differs between two `Search`es, but for the number of trials, in words."""
    both = ({**dataclasses.asdict(each), "trials": 0} for each in (known, wanted))
    return "; ".join(_differences(*map(files.as_json, both)))


def _differences(known, wanted, where=""):
    found = []
    for name in sorted(set(known) | set(wanted)):
        before, now = known.get(name), wanted.get(name)
        if isinstance(before, dict) and isinstance(now, dict):
            found += _differences(before, now, f"{where}{name}.")
        elif before != now:
            found.append(f"{where}{name} was {before!r}, now {now!r}")
    return found


def _begin_anew(folder):
    """Forgets a search that has begun no trial, and that nobody is at.

    Raises:
        UserError: Another process is preparing it.
    """
    for lock in (folder / "workers").glob(".*.lock"):
        with files.lock(lock, wait=False):
            pass  # Its process is gone.
    for name in ("search.json", "corpus.json", "split.csv", "source.json"):
        (folder / name).unlink(missing_ok=True)
    shutil.rmtree(folder / "warmup", ignore_errors=True)


def check_same(folder, search):
    """Raises a `UserError` if a folder does not hold this search any more."""
    if changed := _changes(Search.load(folder), search):
        raise UserError(f"{folder} was begun anew meanwhile: {changed}")


def keep_source(folder, source):
    """Notes where the data was, for the report."""
    files.write_json(
        pathlib.Path(folder, "source.json"), dataclasses.asdict(source.absolute())
    )


def load_source(folder):
    """Reads what `keep_source` wrote.

    Raises:
        UserError: Nothing there.
    """
    try:
        found = files.read_json(pathlib.Path(folder, "source.json"))
        return corpus.DataSource(**found)
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{folder} is not the folder of a search ({error})") from error


def divide(folder, search, songs):
    """The `lca_keras.data.corpus.Division` of a search's songs, for all its processes.

    Raises:
        UserError: The songs are not those that the search was begun with.
    """
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

    Raises:
        UserError: The name that the user chose is taken.
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

    Args:
        folder: Folder of the search, opened by `open_folder`.
        worker: Name of this process.
        on_event: Optional function called with every event, whoever's, and whether it
            is from before this process came.
    """

    def __init__(self, folder, worker, on_event=None):
        self.folder = pathlib.Path(folder)
        self.worker = worker
        self.journal = Journal(self.folder / "events.jsonl")
        self._on_event = on_event or (lambda event, past: None)
        self._watch = Watch(self.folder / "workers")
        self._oracle, self._events, self._told = None, [], 0
        with self._locked():
            self.journal.trim(oracles.MAX_FAILURES)
            self._catch_up(past=True)

    def _locked(self):
        return files.lock(self.folder / ".lock")

    def ask(self):
        """Returns the next KerasTuner trial, or `None` when the search is over.

        Waits while other processes have what is left: one of them may die.

        Raises:
            UserError: Several trials failed in a row.
        """
        while True:
            with self._locked():
                self._catch_up()
                self._give_up_the_dead()
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
                    self._write(
                        "start",
                        trial=trial.trial_id,
                        worker=self.worker,
                        values=trial.hyperparameters.values,
                    )
            if trial.status == "RUNNING":
                return trial
            if trial.status == "STOPPED":
                return None
            time.sleep(POLL_SECONDS)

    def tell(self, trial, score, reason=None):
        """Writes a trial's score down, or `None` and the reason of a failure."""
        values = trial.hyperparameters.values
        with self._locked():
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
            self._oracle, self._events = _make_oracle(search), []
        self._oracle.most_trials = search.trials  # It may have been lengthened.
        for event in events[len(self._events) :]:
            oracles.apply(self._oracle, event)
        self._events = events
        self._tell(past)

    def _give_up_the_dead(self):
        for worker in set(self._oracle.ongoing_trials) - {self.worker}:
            if self._watch.is_dead(worker):
                trial = self._oracle.ongoing_trials[worker].trial_id
                self._oracle.abandon(worker)
                self._write("abandon", worker=worker, trial=trial)


def _make_oracle(search):
    space = spaces.from_json(search.space)
    config = search.base
    lca_epochs = config.train.epochs - spaces.longest_warmup(space, config)
    return oracles.make_oracle(
        search.algorithm, space, search.trials, lca_epochs, config.train.seed
    )
