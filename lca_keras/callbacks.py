"""Callbacks of a training run."""

import dataclasses
import math
import os
import pathlib
import time

import keras
import numpy as np

from lca_keras import files
from lca_keras.console import UserError


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


@dataclasses.dataclass
class TrainingState:
    """Where a run stands; `checkpoints/state.json`.

    Attributes:
        epoch: Number of finished epochs.
        best_epoch: Epoch (from 1) with the highest validation F1 so far.
        best_f1: That F1.
        last: File of the last epoch's model.
        best: File of the best epoch's model.
        history: One dict of logs for each finished epoch.
    """

    epoch: int = 0
    best_epoch: int = 0
    best_f1: float = -1.0
    last: str | None = None
    best: str | None = None
    history: list = dataclasses.field(default_factory=list)

    @classmethod
    def load(cls, folder):
        """Reads the state of a checkpoint folder; a new one if there is none."""
        path = pathlib.Path(folder, "state.json")
        if not path.exists():
            return cls()
        try:
            return cls(**files.read_json(path))
        except (ValueError, TypeError) as error:
            raise UserError(f"{path} is damaged ({error})") from error


class Checkpoint(keras.callbacks.Callback):
    """Keeps the last model and the one with the best validation F1.

    After every epoch the model (weights, optimizer, configuration) is written, then
    `state.json` that names it, then what is no longer named is deleted. A kill at any
    moment leaves a state whose files are whole.

    Args:
        folder: Folder for checkpoints.
        state: `TrainingState` to continue from.
    """

    def __init__(self, folder, state):
        super().__init__()
        self.folder = pathlib.Path(folder)
        self.state = state

    def on_epoch_end(self, epoch, logs=None):
        """Saves the model and the state."""
        logs = {name: float(value) for name, value in logs.items()}
        name = f"epoch-{epoch + 1:04d}.keras"
        with files.atomic_path(self.folder / name) as temporary:
            self.model.save(temporary)
        state = self.state
        state.epoch, state.last = epoch + 1, name
        state.history.append({"epoch": epoch + 1, **logs})
        # On a tie the later epoch: it has trained longer on the full loss.
        if logs["val_f1"] >= state.best_f1:
            state.best_f1, state.best_epoch, state.best = (
                logs["val_f1"],
                epoch + 1,
                name,
            )
        files.write_json(self.folder / "state.json", dataclasses.asdict(state))
        for path in self.folder.glob("*epoch-*.keras"):  # Temporary ones too.
            if path.name not in (state.last, state.best):
                path.unlink()


class HistoryFile(keras.callbacks.Callback):
    """Writes the logs of all epochs as CSV.

    Args:
        path: File to write.
        state: The run's `TrainingState`, updated by `Checkpoint` before this runs.
    """

    def __init__(self, path, state):
        super().__init__()
        self.path = path
        self.state = state

    def on_epoch_end(self, epoch, logs=None):
        """Rewrites the file."""
        history = self.state.history
        files.write_csv(self.path, list(history[-1]), history)


class LossWeightLog(keras.callbacks.Callback):
    """Adds the active loss weights and the learning rate to the logs.

    Placed before the callbacks that read logs.
    """

    def on_epoch_end(self, epoch, logs=None):
        """Adds the weights of this epoch: warm-up is main 1, the rest 0."""
        opened = float(self.model.gate.result())
        for name, weight in self.model.active_weights().items():
            if self.model.method == "none":
                weight = 1.0
            warm = 1.0 if name == "main" else 0.0
            logs[f"weight_{name}"] = opened * weight + (1 - opened) * warm
        logs["learning_rate"] = float(self.model.optimizer.learning_rate)


class EpochProgress(keras.callbacks.Callback):
    """Shows a bar over the epoch's steps and leaves one line for every epoch.

    A context manager: the bar is on the screen within it.

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
        self.bar.start()
        return self

    def __exit__(self, *exception):
        # Also after an error or Ctrl-C: an open bar hides the cursor.
        self.bar.stop()

    def on_epoch_begin(self, epoch, logs=None):
        """Starts the bar of this epoch."""
        self.started = time.monotonic()
        name = f"epoch {epoch + 1}/{self.epochs}"
        self.bar.reset(self.task, total=self.steps, description=name)

    def on_train_batch_end(self, batch, logs=None):
        """Moves the bar."""
        self.bar.update(self.task, completed=batch + 1)

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
        width = len(str(self.epochs))
        self.bar.console.print(
            f"epoch {epoch + 1:{width}d}/{self.epochs} {stage:<7}  {values}  "
            f"{seconds:.1f} s",
            highlight=False,
            soft_wrap=True,
        )


def tensorboard(folder):
    """Keras's TensorBoard callback for scalars; `evaluate` adds the pictures."""
    return keras.callbacks.TensorBoard(
        log_dir=os.fspath(folder), write_graph=False, update_freq="epoch"
    )
