"""Who computes an experiment's trainings, and what is done and left."""

import contextlib
import dataclasses
import functools
import multiprocessing
import os
import sys
import time
import traceback

from lca_keras.base import console, files, processes
from lca_keras.workflow import cells


@dataclasses.dataclass(frozen=True)
class Plan:
    """Trainings of an experiment by name: (laboratory, variant, configuration)."""

    trainings: dict

    @functools.cached_property
    def cells(self):
        """Dict from name to the arguments of `lca_keras.workflow.cells.cell`."""
        return {
            name: laboratory.cell(*about)
            for name, (laboratory, *about) in self.trainings.items()
        }

    def missing(self):
        """Names of the trainings that have no result yet."""
        return [name for name in self.cells if not self._has_result(name)]

    def epochs(self):
        """Epochs that are done, and all."""
        done = total = 0
        for name, (folder, _, _) in self.cells.items():
            epochs = self.trainings[name][2].train.epochs
            state = _read(folder / "checkpoints" / "state.json")
            finished = epochs if self._has_result(name) else state.get("epoch", 0)
            done, total = done + min(finished, epochs), total + epochs
        return done, total

    def _has_result(self, name):
        folder, settings, _ = self.cells[name]
        cell = _read(folder / "cell.json")
        return "result" in cell and cell["settings"] == files.as_json(settings)


def _read(path):
    """A dict of a JSON file that another process may be about to write."""
    with contextlib.suppress(OSError, ValueError):
        return files.read_json(path)
    return {}


def duration(seconds):
    """Seconds for people."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


class Crew(contextlib.AbstractContextManager):
    """The processes that compute an experiment: this one, and helpers beside it.

    Helpers do the whole experiment over, and each cell is computed by whoever comes to
    it first. A pool would wait for a training that is under way when the experiment
    ends by an error; helpers are ended. Each of `jobs` processes has its share of the
    cores.

    `help_with` is a function that other processes can import, and its arguments; it
    does the whole experiment as a helper. `log` is a file for what helpers have to say.
    """

    def __init__(self, jobs, help_with, log, observer, helper=False):
        self.jobs, self.observer, self.helper = jobs, observer, helper
        self._log, self._help_with, self._helpers = log, help_with, []
        if jobs > 1:
            import tensorflow as tf

            cores = max(1, (os.cpu_count() or 1) // jobs)
            with contextlib.suppress(RuntimeError):  # Too late: something has run.
                tf.config.threading.set_intra_op_parallelism_threads(cores)
                tf.config.threading.set_inter_op_parallelism_threads(cores)

    def __exit__(self, *exception):
        for process in self._helpers:
            process.terminate()
        for process in self._helpers:
            process.join()

    def train(self, plan):
        """Trains, and says what is done and left; a dict from name to `Trained`."""
        missing = plan.missing()
        if self.helper or not missing:
            results = dict(cells.cells(plan.cells))
        else:
            results = self._train_and_tell(plan, len(missing))
        return {
            name: laboratory.trained(variant, config, results[name])
            for name, (laboratory, variant, config) in plan.trainings.items()
        }

    def _train_and_tell(self, plan, missing):
        count = len(plan.trainings)
        trainings = "1 training" if count == 1 else f"{count} trainings"
        beside = f"; the others in {self.jobs} processes" if self.jobs > 1 else ""
        self.observer.note(f"{trainings}, {count - missing} of them done{beside}")
        begin = time.monotonic()
        context = multiprocessing.get_context("spawn")
        about = (os.getpid(), os.fspath(self._log), *self._help_with)
        for _ in range(self.jobs - 1):
            process = context.Process(target=_help, args=about, daemon=True)
            process.start()
            self._helpers.append(process)
        with (
            self.observer.progress("Training, epochs") as progress,
            processes.repeatedly(lambda: progress(*plan.epochs()), seconds=1.0),
        ):
            results = dict(cells.cells(plan.cells))
        if any(process.exitcode for process in self._helpers):
            self.observer.note(f"note: a helping process died; see {self._log}")
        self.observer.note(f"trained in {duration(time.monotonic() - begin)}")
        return results

    def analyse(self, title, wanted):
        """Computes cells that follow from trainings; a dict of their results."""
        if not wanted:
            return {}
        results = {}
        with self.observer.progress(title) as progress:
            progress(0, len(wanted))
            for name, result in cells.cells(wanted):
                results[name] = result
                progress(len(results), len(wanted))
        return results


def _help(parent, log, function, arguments):
    """A helper's life: it ends with the process that called it."""
    processes.end_with(parent)
    with (
        open(os.devnull, "w") as nowhere,
        contextlib.redirect_stdout(nowhere),
        console.stderr_to(log),
        contextlib.suppress(KeyboardInterrupt),
    ):
        try:
            function(*arguments)
        except Exception:  # Raised on, it would be told on the screen, not in the log.
            traceback.print_exc()
            sys.exit(1)
