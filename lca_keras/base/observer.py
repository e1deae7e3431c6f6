"""Who is told what a job does, and may show it."""

import contextlib


class Observer:
    """Is told what a job does, and stays silent.

    The library never prints; who wants to show something overrides a method, as
    `lca_keras.terminal.screen.Screen` does for the commands.
    """

    def progress(self, what):
        """A context manager; yields a function to call with (done, total)."""
        return contextlib.nullcontext(lambda done, total: None)

    def working(self, what):
        """A context manager: this is being done within it."""
        return contextlib.nullcontext()

    def training(self, epochs, steps, warmup_epochs):
        """A context manager; yields Keras callbacks that watch a training."""
        return contextlib.nullcontext(())

    def note(self, text):
        """Takes a line for people."""

    def notes(self, lines):
        """Takes several."""
        for line in lines:
            self.note(line)

    def told(self, what, values):
        """Takes what has come of a step, a dict of plain values.

        `what` is `"corpus"` and `"strangers"` (`songs`, `artists`, `skipped` and
        `doubtful` with reasons by path, `notes`); `"parts"` (by part `songs`, `clips`,
        and the artists that are `lacking`); `"train"` (`epochs`, `best_epoch`,
        `objective`); `"calibrate"` (`temperature`, `parameters`); `"evaluate"` (scores
        by part); `"voice_report"` (`songs`, `scores`, `shares`); `"gallery"`
        (`gallery` of `metrics.json`, and as `unmeasured` why nothing is known of
        strangers, or `None`); `"export"` (`folder`).
        """
