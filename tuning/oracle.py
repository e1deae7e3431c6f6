"""KerasTuner's oracles, made to follow from what is on record.

Every process that works on a search has an oracle of its own. Its proposals follow from
the seed and the events of the `tuning.journal`, so all processes agree, whenever they
came and however often they were killed. KerasTuner's own project files are not used:
they are not written atomically.
"""

import copy
import itertools
import math

import keras_tuner as kt

from lca_keras.base.errors import UserError
from tuning import privates
from tuning import space as spaces

OBJECTIVE = kt.Objective("score", "max")
# Failed trials in a row that end a search: the next one would fail too.
MAX_FAILURES = 3
_GRID_POINTS = 3


class _Repeatable(privates.Unsaved):
    """An oracle whose state is the events, and nothing else."""

    # Why the search has to end, if it has.
    fatal = None
    # KerasTuner's own limit decides the width of identifiers, so that a search with
    # another limit could not go on where this one ended.
    most_trials = None

    def __init__(self, **options):
        super().__init__(**options)
        privates.check(self)
        self.verbose, self.max_trials = 0, None
        self.waiting = []  # Trials of dead workers.

    def populate_space(self, trial_id):
        """Proposes values, or ends the search."""
        if self.most_trials is not None and len(self.trials) >= self.most_trials:
            return {"status": "STOPPED"}
        return super().populate_space(trial_id)

    def create_trial(self, tuner_id):
        """Proposes a trial."""
        if self.waiting and tuner_id not in self.ongoing_trials:
            self.ongoing_trials[tuner_id] = self.waiting.pop()
        same = {id(each): each for each in (self, *self.trials.values())}
        before = copy.deepcopy(vars(self), same)
        trial = super().create_trial(tuner_id)
        if trial.status != "RUNNING":
            # How often a worker asks in vain must not change what comes next.
            vars(self).update(before)
            if self.ongoing_trials:
                # Another worker's trial may come back, should that worker die.
                trial.status = "IDLE"
        return trial

    def end_trial(self, trial):
        """Takes a result."""
        trial_id = trial.trial_id
        # Otherwise from a worker that was given up, and finished after all.
        if trial_id not in self.end_order:
            super().end_trial(trial)
            last = [self.trials[each] for each in self.end_order[-MAX_FAILURES:]]
            if [each.status for each in last] == ["FAILED"] * MAX_FAILURES:
                self.fatal = trial.message or "no reason is known."
        # Nobody has or waits for this trial any more.
        self.waiting = [each for each in self.waiting if each.trial_id != trial_id]
        ongoing = self.ongoing_trials.items()
        self.ongoing_trials = {w: t for w, t in ongoing if t.trial_id != trial_id}


class _Combinations(kt.Oracle):
    """All combinations in order; KerasTuner's grid waits for trials to end."""

    def populate_space(self, trial_id):
        """Proposes the next one."""
        space = self.hyperparameters.space
        every = itertools.product(*(entry.values for entry in space))
        values = next(itertools.islice(every, len(self.trials), None), None)
        if values is None:
            return {"status": "STOPPED"}
        named = {entry.name: v for entry, v in zip(space, values, strict=True)}
        return {"status": "RUNNING", "values": named}


def size(algorithm, space, trials):
    """Number of trials of a search; `None` for Hyperband, which decides on the way."""
    if algorithm == "grid":
        whole = math.prod(len(p.grid(_GRID_POINTS).values) for p in space.values())
        return whole if trials is None else min(trials, whole)
    return trials


def make_oracle(algorithm, space, trials, lca_epochs, seed):
    """Builds a KerasTuner oracle of at most so many `trials`, for `apply`.

    `lca_epochs`, those after the warm-up, are Hyperband's largest budget.
    """
    if algorithm == "grid":
        space = {name: p.grid(_GRID_POINTS) for name, p in space.items()}
    bases = {
        "bayesian": privates.BayesianOracle,
        "grid": _Combinations,
        "hyperband": kt.oracles.HyperbandOracle,
        "random": kt.oracles.RandomSearchOracle,
    }
    oracle = type(algorithm, (_Repeatable, bases[algorithm]), {})(
        objective=OBJECTIVE,
        hyperparameters=spaces.hyperparameters(space),
        allow_new_entries=False,
        tune_new_entries=False,
        seed=seed + 1,  # KerasTuner takes zero for none.
        max_consecutive_failed_trials=math.inf,  # They are counted here.
        **({"max_epochs": lca_epochs} if algorithm == "hyperband" else {}),
    )
    oracle.most_trials = trials
    return oracle


def apply(oracle, event):
    """Lets an event of the journal happen to an oracle, in the past or now."""
    trial_id = event["trial"]
    if event["event"] == "start":
        oracle.recorded = event["values"]
        trial = oracle.create_trial(event["worker"])
        oracle.recorded = None
        values = trial.hyperparameters.values
        if trial.trial_id != trial_id or not _alike(values, event["values"]):
            raise UserError(
                f"trial {trial_id} cannot be repeated: this search was begun "
                "with another version of KerasTuner. Continue it with that one, or "
                "begin a new search under another --name."
            )
        # Another machine's arithmetic may differ in the last bits.
        trial.hyperparameters.values = event["values"]
    elif event["event"] == "abandon":
        oracle.waiting.append(oracle.ongoing_trials.pop(event["worker"]))
    elif trial_id in oracle.trials:
        trial = oracle.get_trial(trial_id)
        if trial_id not in oracle.end_order:
            trial.status = "FAILED" if event["score"] is None else "COMPLETED"
            trial.message = event["message"]
            if event["score"] is not None:
                oracle.update_trial(trial_id, {"score": event["score"]})
        oracle.end_trial(trial)


def _alike(values, others):
    """Whether two sets of values are the same but for rounding."""
    return set(values) == set(others) and all(
        math.isclose(values[name], others[name], rel_tol=1e-6)
        if isinstance(values[name], float)
        else values[name] == others[name]
        for name in values
    )
