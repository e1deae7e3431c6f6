"""What is shown while a network is trained."""

import time

import keras
import numpy as np

from lca_keras.base import console


class EpochProgress(keras.callbacks.Callback):
    """Shows a bar over the epoch's steps and leaves one line for every epoch.

    A context manager, as `Observer.training`: within it the bar is on the screen. The
    bar says so while the network is compiled and while it is validated, and after the
    first epoch about how long all epochs will take.
    """

    def __init__(self, epochs, steps, warmup_epochs):
        super().__init__()
        self.epochs = epochs
        self.steps = steps
        self.warmup_epochs = warmup_epochs

    def __enter__(self):
        self.bar = console.bar(transient=True)
        self.task = self.bar.add_task("", total=self.steps)
        self.seconds = []
        self.bar.start()
        return [self]

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
        name = self.name + (": validating" if batch + 1 == self.steps else "")
        self.bar.update(self.task, completed=batch + 1, description=name)

    def on_epoch_end(self, epoch, logs=None):
        """Prints the epoch's line."""
        stage = "warm-up" if epoch < self.warmup_epochs else self.model.method
        stage = "plain" if self.model.method == "none" else stage
        shown = {"loss": "loss", "f1": "F1", "val_f1": "val F1"}
        shown |= {"val_cf_f1": "val cf F1", "val_att_term": "|A-A~|"}
        told = [f"{shown[name]} {logs[name]:.3f}" for name in shown if name in logs]
        seconds = time.monotonic() - self.started
        self.seconds.append(seconds)
        width = len(str(self.epochs))
        self.bar.console.print(
            f"epoch {epoch + 1:{width}d}/{self.epochs} {stage:<7}  {'  '.join(told)}  "
            f"{seconds:.1f} s",
            highlight=False,
            soft_wrap=True,
        )
