"""Who watches an experiment: nobody, or somebody at a terminal."""

import contextlib

from lca_keras.base import console
from lca_keras.terminal import screen


class Audience:
    """Nobody: all is silent."""

    # Function of a `DataSource` and a `Config`; `None` is `corpus.prepare`.
    prepare = None

    def say(self, text):
        """Takes a line."""

    def progress(self, title):
        """A context; yields a function to call with (done, total)."""
        return contextlib.nullcontext(lambda done, total: None)


class Terminal(Audience):
    """Somebody who reads lines and sees bars."""

    prepare = staticmethod(screen.prepare_corpus)

    def say(self, text):
        """Prints a line."""
        print(text, flush=True)

    def progress(self, title):
        """A bar; see `lca_keras.base.console.progress`."""
        return console.progress(title)
