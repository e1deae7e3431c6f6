"""What the search uses of KerasTuner's private parts: all of it is here."""

import keras_tuner as kt
import numpy as np

from lca_keras.base.errors import UserError

# By the class that has them; the next version may have others.
PRIVATE = {
    kt.Oracle: ("_save_trial",),
    kt.oracles.BayesianOptimizationOracle: ("_random_state", "_vectorize_trials"),
}


def check(oracle):
    """Raises unless KerasTuner has the private parts that an oracle uses."""
    kinds = [kind for kind in type(oracle).__mro__ if kind.__module__ != __name__]
    there = set(vars(oracle)).union(*map(vars, kinds))
    for kind, names in PRIVATE.items():
        gone = set(names) - there if isinstance(oracle, kind) else ()
        if gone:
            raise UserError(
                f"KerasTuner {kt.__version__} has no {kind.__name__}."
                f"{', '.join(sorted(gone))} any more, which searches need: pip install "
                "'keras-tuner==1.4.8'"
            )


class Unsaved(kt.Oracle):
    """An oracle without KerasTuner's project files."""

    def save(self):
        """Writes nothing."""

    def _save_trial(self, trial):
        """Writes nothing."""


class BayesianOracle(kt.oracles.BayesianOptimizationOracle):
    """Bayesian proposals that depend on the trials alone, not on proposals before."""

    # Values on record of the trial that is being replayed.
    recorded = None

    def populate_space(self, trial_id):
        """Proposes values."""
        done = {k: t for k, t in self.trials.items() if t.status == "COMPLETED"}
        if len(done) < max(3 * len(self.hyperparameters.space), 3):
            return super().populate_space(trial_id)  # Random, and quick.
        if self.recorded is not None:
            return {"status": "RUNNING", "values": self.recorded}
        self._random_state = np.random.RandomState([self.seed, len(self.trials)])
        if self.ongoing_trials:
            # What running trials will score is guessed by the process fitted last.
            trials, self.trials = self.trials, done
            self.gpr.fit(*self._vectorize_trials())
            self.trials = trials
        return super().populate_space(trial_id)
