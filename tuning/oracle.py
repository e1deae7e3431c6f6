"""KerasTuner's oracles, made to survive kills, late workers and dead ones.

What happened in a search is a list of events, trials begun and ended, in a file of our
own that is only ever appended to. An oracle's proposals follow from its seed and these
events, so whoever continues a search makes a new oracle and replays them. KerasTuner's
own project folder is scratch: its files are not written atomically.
"""

import copy
import json
import math
import os
import time

import keras_tuner as kt

from lca_keras import files
from lca_keras.console import UserError
from tuning import space as spaces

OBJECTIVE = kt.Objective("score", "max")
# Failed trials in a row that end a search: the next one would fail too.
MAX_FAILURES = 3
_GRID_POINTS = 3
# What an oracle's next proposal follows from, apart from the trials.
_PROPOSING = (
    *("_seed_state", "_tried_so_far", "_populate_next"),
    *("_brackets", "_current_bracket", "_current_iteration"),
)


class EventLog:
    """Trials begun and ended, one JSON object a line.

    Args:
        path: File; made with the first event.
    """

    def __init__(self, path):
        self.path = path

    def read(self):
        """Returns the list of events; a line that a kill cut short does not count."""
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return []
        whole, _, _ = content.rpartition(b"\n")
        return [json.loads(line) for line in whole.splitlines()]

    def append(self, event):
        """Adds an event, on disk when this returns."""
        line = json.dumps({**event, "time": round(time.time(), 3)}) + "\n"
        with open(self.path, "ab") as file:
            file.write(line.encode())
            file.flush()
            os.fsync(file.fileno())

    def trim(self):
        """Forgets a line that was cut short, and failures that ended the search."""
        events, streak = self.read(), []
        for event in [event for event in events if event["event"] == "end"]:
            streak = [*streak, event["trial"]] if event["score"] is None else []
            if len(streak) == MAX_FAILURES:
                # What was finished meanwhile is found in the folders of its trials.
                begun = [event.get("trial") in streak for event in events]
                events = events[: begun.index(True)]
                break
        text = "".join(json.dumps(event) + "\n" for event in events)
        with files.atomic_path(self.path) as temporary:
            temporary.write_text(text, encoding="utf-8")


def _recorded(base):
    """A KerasTuner oracle class that writes down what happens to it."""

    class Recorded(base):
        log = None  # Events are written once the past is replayed.
        fatal = None
        # KerasTuner's own limit decides the width of identifiers, so that a search with
        # another limit could not go on where this one ended.
        most_trials = None

        def populate_space(self, trial_id):
            """Proposes values, or ends the search; see `keras_tuner.Oracle`."""
            if self.most_trials is not None and len(self.trials) >= self.most_trials:
                return {"status": "STOPPED"}
            return super().populate_space(trial_id)

        @kt.synchronized
        def create_trial(self, tuner_id):
            """Proposes a trial; see `keras_tuner.Oracle`."""
            given = tuner_id in self.ongoing_trials
            before = {
                name: copy.deepcopy(getattr(self, name))
                for name in _PROPOSING
                if hasattr(self, name)
            }
            if self.fatal:
                self.tuner_ids.discard(tuner_id)
                return kt.engine.trial.Trial(self.get_space(), status="STOPPED")
            trial = super().create_trial(tuner_id)
            if trial.status != "RUNNING":
                # How often a worker asks in vain must not change what comes next.
                for name, value in before.items():
                    setattr(self, name, value)
            if trial.status == "STOPPED" and self.ongoing_trials:
                # Another worker's trial may come back, should that worker die.
                trial.status = "IDLE"
                self.tuner_ids.add(tuner_id)
            elif trial.status == "RUNNING" and not given:
                if hasattr(self, "_populate_next"):
                    # KerasTuner's grid finds the next combination once this trial has
                    # ended, for new entries might appear; here none can, and other
                    # workers are waiting.
                    self._populate_next.append(trial.trial_id)
                self._record(
                    "start",
                    trial=trial.trial_id,
                    worker=tuner_id,
                    values=trial.hyperparameters.values,
                )
            return trial

        @kt.synchronized
        def end_trial(self, trial):
            """Takes a result; see `keras_tuner.Oracle`."""
            trial_id = trial.trial_id
            if trial_id in self.end_order:
                # From a worker that was given up, and finished after all.
                self._let_go(trial_id)
                return
            try:
                super().end_trial(trial)
            except RuntimeError as error:
                self.fatal = self.explain(trial_id) or str(error)
            self._let_go(trial_id)
            ended = self.trials[trial_id]
            failed = ended.score is None
            self._record(
                "end",
                trial=trial_id,
                score=ended.score,
                message=self.explain(trial_id) or ended.message if failed else None,
            )

        def explain(self, trial_id):
            """Why a trial failed, if its worker left word; to be replaced."""

        def _let_go(self, trial_id):
            """Nobody has or waits for this trial any more."""
            if trial_id in self._retry_queue:
                self._retry_queue.remove(trial_id)
            for worker, ongoing in list(self.ongoing_trials.items()):
                if ongoing.trial_id == trial_id:
                    del self.ongoing_trials[worker]

        @kt.synchronized
        def abandon(self, tuner_id):
            """Gives the trial of a dead worker to the next one."""
            trial = self.ongoing_trials.pop(tuner_id, None)
            self.tuner_ids.discard(tuner_id)
            if trial is not None:
                self._retry_queue.append(trial.trial_id)
                self._record("abandon", worker=tuner_id, trial=trial.trial_id)
            return trial

        def _record(self, event, **facts):
            if self.log is None:
                return
            try:
                self.log.append({"event": event, **facts})
            except OSError as error:
                # An exception here would leave KerasTuner's lock held.
                self.fatal = f"{self.log.path} cannot be written: {error.strerror}"
            self.on_event(event, facts)

        def on_event(self, event, facts):
            """Called after every event; to be replaced."""

        def save(self):
            """Writes nothing: the events are the state."""

        def reload(self):
            """Reads nothing: the events are the state."""

        def _save_trial(self, trial):
            """Writes nothing: the events are the state."""

    return Recorded


def size(algorithm, space, trials):
    """Number of trials of a search; `None` for Hyperband, which decides on the way.

    Args:
        algorithm: One of `tuning.space.ALGORITHMS`.
        space: Dict from name to `tuning.space.Parameter`.
        trials: Int or `None`, as for `make_oracle`.

    Returns:
        Int or `None`.
    """
    if algorithm == "hyperband":
        return None
    if algorithm == "grid":
        whole = math.prod(len(p.grid(_GRID_POINTS).values) for p in space.values())
        return whole if trials is None else min(trials, whole)
    return trials


def make_oracle(algorithm, space, trials, lca_epochs, seed):
    """Builds an oracle.

    Args:
        algorithm: One of `tuning.space.ALGORITHMS`.
        space: Dict from name to `tuning.space.Parameter`.
        trials: Int, most trials, or `None` for all of a grid; Hyperband decides by
            itself.
        lca_epochs: Int, epochs after the warm-up, Hyperband's largest budget.
        seed: Int.

    Returns:
        A KerasTuner oracle that records events.
    """
    if algorithm == "grid":
        space = {name: p.grid(_GRID_POINTS) for name, p in space.items()}
    shared = {
        "objective": OBJECTIVE,
        "hyperparameters": spaces.hyperparameters(space),
        "allow_new_entries": False,
        "tune_new_entries": False,
        # KerasTuner takes a seed of zero for none.
        "seed": seed + 1,
        "max_consecutive_failed_trials": MAX_FAILURES,
    }
    if algorithm == "hyperband":
        oracle = _recorded(kt.oracles.HyperbandOracle)(max_epochs=lca_epochs, **shared)
    else:
        base = {
            "bayesian": kt.oracles.BayesianOptimizationOracle,
            "random": kt.oracles.RandomSearchOracle,
            "grid": kt.oracles.GridSearchOracle,
        }[algorithm]
        oracle = _recorded(base)(max_trials=None, **shared)
        oracle.most_trials = trials
    oracle.verbose = 0
    return oracle


def replay(oracle, events):
    """Brings a new oracle to where a search stands.

    Args:
        oracle: What `make_oracle` gave.
        events: List of events, from `EventLog.read`.

    Raises:
        UserError: The events are not those of this oracle.
    """
    for event in events:
        if event["event"] == "start":
            trial = oracle.create_trial(event["worker"])
            values = trial.hyperparameters.values
            if trial.trial_id != event["trial"] or not _alike(values, event["values"]):
                raise UserError(
                    f"trial {event['trial']} cannot be repeated: this search was begun "
                    "with another version of KerasTuner. Continue it with that one, or "
                    "begin a new search under another --name."
                )
            # Another machine's arithmetic may differ in the last bits.
            trial.hyperparameters.values = event["values"]
        elif event["event"] == "abandon":
            oracle.abandon(event["worker"])
        else:
            trial = oracle.get_trial(event["trial"])
            trial.status = "FAILED" if event["score"] is None else "COMPLETED"
            trial.message = event["message"]
            if event["score"] is not None:
                oracle.update_trial(event["trial"], {"score": event["score"]})
            oracle.end_trial(trial)
    oracle.fatal = None


def _alike(values, others):
    """Whether two sets of values are the same but for rounding."""
    return set(values) == set(others) and all(
        math.isclose(values[name], others[name], rel_tol=1e-6)
        if isinstance(values[name], float)
        else values[name] == others[name]
        for name in values
    )
