"""Callbacks of a training run."""

import math

import keras
import numpy as np

from lca_keras.base.errors import UserError


class WarmUp(keras.callbacks.Callback):
    """Opens the gate of an `LCAModel` after the warm-up epochs.

    The gate is set from the epoch's number, so a resumed run opens it when the
    uninterrupted one would have.
    """

    def __init__(self, epochs):
        super().__init__()
        self.epochs = epochs

    def on_epoch_begin(self, epoch, logs=None):
        """Sets the gate."""
        self.model.gate.update_state(epoch >= self.epochs)


class EpochSeed(keras.callbacks.Callback):
    """Seeds dropout anew from the epoch's number.

    Keras does not restore its seed generators from a checkpoint; with this a resumed
    run draws what the uninterrupted one would have drawn.
    """

    def __init__(self, seed):
        super().__init__()
        self.seed = seed

    def on_epoch_begin(self, epoch, logs=None):
        """Sets the state of every seed generator of the model."""
        states = [v for v in self.model.variables if "seed_generator" in v.path]
        for number, state in enumerate(states):
            sequence = np.random.SeedSequence([self.seed, epoch, number])
            state.assign(sequence.generate_state(2))


class StopOnDivergence(keras.callbacks.Callback):
    """Ends training with an error once the loss is NaN or infinite."""

    def on_train_batch_end(self, batch, logs=None):
        """Checks the running mean of the loss."""
        if not math.isfinite(logs["loss"]):
            raise DivergenceError(logs["loss"], batch)


class DivergenceError(UserError):
    """The loss is not a number any more."""

    def __init__(self, loss, batch):
        super().__init__(
            f"The loss became {loss} at step {batch + 1} of the epoch. The checkpoints "
            "of the epochs before are kept. Try a lower --learning-rate, "
            "--precision float32, or smaller loss weights."
        )


class LossWeightLog(keras.callbacks.Callback):
    """Adds the active loss weights and the learning rate to the logs.

    Placed before the callbacks that read logs.
    """

    def on_epoch_end(self, epoch, logs=None):
        """Adds the weights of this epoch: warm-up is main 1, the rest 0."""
        opened = logs["gate"]
        for name, weight in self.model.active_weights().items():
            weight = 1.0 if self.model.method == "none" else weight
            warm = float(name == "main")
            logs[f"weight_{name}"] = opened * weight + (1 - opened) * warm
        rate = keras.ops.convert_to_numpy(self.model.optimizer.learning_rate)
        logs["learning_rate"] = float(rate)
