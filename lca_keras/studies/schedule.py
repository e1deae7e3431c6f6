"""How long trainings will take, who computes them, and what is done and left."""

import contextlib
import dataclasses
import functools
import multiprocessing
import os
import threading
import time

import keras
import numpy as np

from lca_keras.base import console, files, processes
from lca_keras.workflow import cells

# Steps below which measuring would take as long as the work.
_WORTH_MEASURING = 100
_MEASURED_STEPS = 8
_FIRST_STEPS = 3
_POLL_SECONDS = 1.0


@dataclasses.dataclass(frozen=True)
class Plan:
    """Trainings of an experiment, by name.

    Attributes:
        trainings: Dict from a hashable name to (laboratory, variant, configuration).
    """

    trainings: dict

    @functools.cached_property
    def cells(self):
        """Dict from name to the arguments of `lca_keras.workflow.cells.cell`."""
        return {
            name: laboratory.cell(variant, config)
            for name, (laboratory, variant, config) in self.trainings.items()
        }

    def missing(self):
        """Names of the trainings that have no result yet."""
        return [
            name
            for name, (folder, settings, _) in self.cells.items()
            if _result(folder, settings) is None
        ]

    def epochs(self):
        """Epochs that are done, and all."""
        done = total = 0
        for name, (folder, settings, _) in self.cells.items():
            epochs = self.trainings[name][2].train.epochs
            total += epochs
            if _result(folder, settings) is not None:
                done += epochs
            else:
                done += min(_epoch(folder), epochs)
        return done, total


def _result(folder, settings):
    with contextlib.suppress(OSError, ValueError):
        cell = files.read_json(folder / "cell.json")
        if cell["settings"] == files.as_json(settings):
            return cell.get("result")
    return None


def _epoch(folder):
    """Epochs that a training has finished."""
    with contextlib.suppress(OSError, ValueError):
        return files.read_json(folder / "checkpoints" / "state.json")["epoch"]
    return 0


# === How long? ===


class _Timer(keras.callbacks.Callback):
    """Seconds of every step."""

    def __init__(self):
        super().__init__()
        self.seconds = []
        self._last = time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        now = time.perf_counter()
        self.seconds.append(now - self._last)
        self._last = now


@dataclasses.dataclass(frozen=True)
class Pace:
    """Seconds that a kind of training takes.

    Attributes:
        start: Until the first step is done.
        step: A step.
        clip: A clip that is evaluated.
        epoch: What an epoch takes beside its steps and its validation: the model is
            written.
    """

    start: float
    step: float
    clip: float
    epoch: float

    @classmethod
    def measure(cls, config, sources, classes, folder):
        """Trains a few steps and evaluates a few songs; `folder` may be written to."""
        from lca_keras.evaluation import scoring
        from lca_keras.models.factory import build_training_model

        train = config.train
        begin = time.perf_counter()
        model = build_training_model(config, classes)
        timer, steps = _Timer(), _FIRST_STEPS + _MEASURED_STEPS
        batches = sources["train"].training(
            train.batch_size, train.seed, 0, steps, config.augment
        )
        model.fit(
            batches, steps_per_epoch=steps, callbacks=[timer], shuffle=False, verbose=0
        )
        steady = timer.seconds[_FIRST_STEPS:]
        validation = sources["validation"]
        few = dataclasses.replace(
            validation, labels=dict(list(validation.labels.items())[:8])
        )
        predict = scoring.Predictor(few)
        predict(model)
        # Compiled once; what comes is the second validation.
        start = time.perf_counter() - begin - sum(steady)
        begin = time.perf_counter()
        predict(model)
        clip = (time.perf_counter() - begin) / few.num_clips
        begin = time.perf_counter()
        with files.atomic_path(folder / "measured.keras") as temporary:
            model.save(temporary)
            epoch = time.perf_counter() - begin
        (folder / "measured.keras").unlink()
        return cls(start, float(np.median(steady)), clip, epoch)

    def seconds(self, train, steps, validation_clips, test_clips, done):
        """Of a whole training of a `TrainConfig` of which `done` epochs are there."""
        each = steps * self.step + validation_clips * self.clip + self.epoch
        # Calibration, and both parts at the end; a graph is traced for each.
        end = (2 * validation_clips + test_clips) * self.clip + 0.3 * self.start
        return self.start + (train.epochs - done) * each + end


def estimate(plan, jobs):
    """Seconds that the trainings of a plan will take in so many processes.

    Returns:
        Float, or `None` if it is less than measuring is worth.
    """
    kinds, total = {}, 0.0
    work = []
    for name in plan.missing():
        laboratory, variant, config = plan.trainings[name]
        folder, _ = laboratory.place(variant, config)
        sources, artists = laboratory.sources(config)
        kind = (
            *(config.features, config.model, config.augment.kinds, config.clip_frames),
            *(config.train.method, config.train.batch_size, config.train.precision),
            *(config.train.detach_counterfactual, len(artists)),
        )
        steps = sources["train"].steps(config.train.batch_size)
        done = _epoch(folder)
        work.append((kind, laboratory, config, sources, artists, steps, done))
    if sum(steps * (c.train.epochs - d) for _, _, c, _, _, steps, d in work) < (
        _WORTH_MEASURING
    ):
        return None
    for kind, laboratory, config, sources, artists, steps, done in work:
        if kind not in kinds:
            laboratory.out.mkdir(parents=True, exist_ok=True)
            kinds[kind] = Pace.measure(config, sources, len(artists), laboratory.out)
            keras.backend.clear_session()
        clips = [sources[part].num_clips for part in ("validation", "test")]
        total += kinds[kind].seconds(config.train, steps, *clips, done)
    return total / min(jobs, len(work))


def duration(seconds):
    """Seconds for people."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


# === Who computes? ===


class Crew:
    """The processes that compute an experiment: this one, and helpers beside it.

    Args:
        jobs: Int, processes in all. Each has its share of the cores.
        help_with: Function that other processes can import, and its arguments; it does
            the whole experiment as a helper.
        log: File for what helpers have to say.
        observer: `lca_keras.base.observer.Observer` of what is done and left.
        helper: Whether this process is one: then nothing is measured.
    """

    def __init__(self, jobs, help_with, log, observer, helper=False):
        self.jobs = jobs
        self.observer = observer
        self._log = log
        self.helper = helper
        self._help_with = help_with
        self._helpers = []
        if jobs > 1:
            import tensorflow as tf

            cores = max(1, (os.cpu_count() or 1) // jobs)
            with contextlib.suppress(RuntimeError):  # Too late: something has run.
                tf.config.threading.set_intra_op_parallelism_threads(cores)
                tf.config.threading.set_inter_op_parallelism_threads(cores)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        for process in self._helpers:
            process.terminate()
        for process in self._helpers:
            process.join()

    def _call_helpers(self):
        function, arguments = self._help_with
        context = multiprocessing.get_context("spawn")
        while len(self._helpers) < self.jobs - 1:
            about = (os.getpid(), os.fspath(self._log), function, arguments)
            process = context.Process(target=_help, args=about, daemon=True)
            process.start()
            self._helpers.append(process)

    def train(self, plan):
        """Does the trainings of a plan, and says what is done and left.

        Returns:
            Dict from name to `lca_keras.studies.laboratory.Trained`.
        """
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
        self.observer.note(f"{trainings}, {count - missing} of them done")
        with self.observer.working("Measuring a step"):
            announced = estimate(plan, self.jobs)
        processes = f" in {self.jobs} processes" if self.jobs > 1 else ""
        left = "it" if count == 1 else f"{missing} of them"
        said = "minutes at most, too little to measure"
        if announced is not None:
            said = f"about {duration(announced)}"
        self.observer.note(f"training {left} will take {said}{processes}")
        begin = time.monotonic()
        self._call_helpers()
        results, ended = {}, threading.Event()
        with self.observer.progress("Training, epochs") as progress:

            def watch():
                while not ended.wait(_POLL_SECONDS):
                    progress(*plan.epochs())

            progress(*plan.epochs())
            watcher = threading.Thread(target=watch, daemon=True)
            watcher.start()
            try:
                for name, result in cells.cells(plan.cells):
                    results[name] = result
            finally:
                ended.set()
                watcher.join()
            progress(*plan.epochs())
        if any(process.exitcode for process in self._helpers):
            self.observer.note(f"note: a helping process died; see {self._log}")
        self.observer.note(f"trained in {duration(time.monotonic() - begin)}")
        return results

    def analyse(self, title, wanted):
        """Computes cells that follow from trainings; a dict of their results."""
        if self.helper:
            return dict(cells.cells(wanted))
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
        function(*arguments)
