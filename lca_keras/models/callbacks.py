"""Callbacks of a training run."""

import math
import time

import keras
import numpy as np

from lca_keras.base.errors import UserError


class WarmUp(keras.callbacks.Callback):
    """Opens the gate of an `LCAModel` after the warm-up epochs.

    The gate is set from the epoch's number, so a resumed run opens it when the
    uninterrupted one would have.

    Args:
        epochs: Int, number of warm-up epochs.
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

    Args:
        seed: Int.
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
            if self.model.method == "none":
                weight = 1.0
            warm = 1.0 if name == "main" else 0.0
            logs[f"weight_{name}"] = opened * weight + (1 - opened) * warm
        rate = keras.ops.convert_to_numpy(self.model.optimizer.learning_rate)
        logs["learning_rate"] = float(rate)


class EpochProgress(keras.callbacks.Callback):
    """Shows a bar over the epoch's steps and leaves one line for every epoch.

    A context manager: the bar is on the screen within it. The bar says so while the
    network is compiled and while it is validated, and after the first epoch about how
    long all epochs will take.

    Args:
        epochs: Int, total number of epochs.
        steps: Int, steps an epoch.
        warmup_epochs: Int, epochs marked as warm-up.
    """

    def __init__(self, epochs, steps, warmup_epochs):
        super().__init__()
        self.epochs = epochs
        self.steps = steps
        self.warmup_epochs = warmup_epochs

    def __enter__(self):
        from rich import progress

        self.bar = progress.Progress(
            progress.TextColumn("{task.description}"),
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TimeRemainingColumn(),
            transient=True,
        )
        self.task = self.bar.add_task("", total=self.steps)
        self.seconds = []
        self.bar.start()
        return self

    def __exit__(self, *exception):
        # Also after an error or Ctrl-C: an open bar hides the cursor.
        self.bar.stop()

    def on_epoch_begin(self, epoch, logs=None):
        """Starts the bar of this epoch."""
        self.started = time.monotonic()
        self.name = f"epoch {epoch + 1}/{self.epochs}"
        if self.seconds:
            left = np.median(self.seconds) * (self.epochs - epoch)
            self.name += f" (about {left / 60:.0f} min left)"
        name = self.name if self.seconds else f"{self.name}: compiling the network"
        self.bar.reset(self.task, total=self.steps, description=name)

    def on_train_batch_end(self, batch, logs=None):
        """Moves the bar."""
        validating = batch + 1 == self.steps
        name = f"{self.name}: validating" if validating else self.name
        self.bar.update(self.task, completed=batch + 1, description=name)

    def on_epoch_end(self, epoch, logs=None):
        """Prints the epoch's line."""
        method = self.model.method
        stage = "warm-up" if epoch < self.warmup_epochs else method
        stage = "plain" if method == "none" else stage
        shown = [
            ("loss", "loss"),
            ("F1", "f1"),
            ("val F1", "val_f1"),
            ("val cf F1", "val_cf_f1"),
            ("|A-A~|", "val_att_term"),
        ]
        values = "  ".join(
            f"{title} {logs[name]:.3f}" for title, name in shown if name in logs
        )
        seconds = time.monotonic() - self.started
        self.seconds.append(seconds)
        width = len(str(self.epochs))
        self.bar.console.print(
            f"epoch {epoch + 1:{width}d}/{self.epochs} {stage:<7}  {values}  "
            f"{seconds:.1f} s",
            highlight=False,
            soft_wrap=True,
        )
