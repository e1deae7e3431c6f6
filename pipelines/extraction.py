"""Runs the Beam pipeline of feature extraction over what a store lacks."""

import contextlib
import importlib
import logging
import os
import shlex
import sys
import threading

from lca_keras.base import console
from lca_keras.base.errors import UserError

# Beam's default runner tries to download a program first; this one needs nothing.
LOCAL_RUNNER = "FnApiRunner"
_POLL_SECONDS = 0.5


def local_options(workers=None):
    """Beam's options for so many processes of this machine, one by default.

    Raises:
        UserError: Fewer than one.
    """
    if workers is not None and workers < 1:
        raise UserError(f"--workers must be at least 1, not {workers}")
    options = [f"--runner={LOCAL_RUNNER}"]
    if (workers or 1) > 1:
        options += [
            "--direct_running_mode=multi_processing",
            f"--direct_num_workers={workers}",
        ]
    return options


def extract(songs, folder, extractor, beam_options, others=()):
    """Brings a feature store up to date with a Beam pipeline.

    `folder` is the absolute path of the store, which all workers see;
    `beam_options` are those of Beam's command line; what the stores in the folders
    `others` have of the same files is taken over.

    Returns:
        Dict from song key to status, `"done"`, `"reused"` or `"failed"`, and why it
        failed or what is doubtful about it.

    Raises:
        UserError: A worker failed, a store of other features, a full disk.
    """
    from lca_keras.data.update import WritableStore

    feature_store = WritableStore(folder, extractor.config)
    with feature_store.locked():
        plan = feature_store.plan(songs, extractor)
        adopted = 0
        if plan.pending and others:
            adopted = feature_store.adopt(plan.pending, extractor, others)
        if adopted:
            plan = feature_store.plan(songs, extractor)
        extractor.check(plan.pending)
        new = {song.key for song in plan.pending}
        if plan.pending:
            _run_pipeline(feature_store, plan, extractor, beam_options)
            plan = feature_store.plan(songs, extractor, again=False)
        if plan.pending:
            raise UserError(
                f"{len(plan.pending)} songs are still to be done, the first is "
                f"{plan.pending[0].label}: they changed meanwhile, or workers do not "
                "see the same folders. Run the same command again."
            )
        feature_store.commit(plan)
    statuses = {
        key: ("done" if key in new else "reused", "; ".join(record.notes))
        for key, record in plan.records.items()
    }
    failed = {key: ("failed", failure.reason) for key, failure in plan.failed.items()}
    return {**statuses, **failed}


def _run_pipeline(feature_store, plan, extractor, beam_options):
    """Runs the pipeline to its end, with a progress bar."""
    # Its reports of each step are of use to those who ask for them.
    logging.getLogger().setLevel(logging.ERROR)
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions

    from pipelines import steps

    parts = feature_store.folder / "parts"
    parts.mkdir(exist_ok=True)
    steps.write_plan(parts / steps.PLAN, plan)
    pipeline = beam.Pipeline(options=PipelineOptions(beam_options))
    # On one machine this process writes the shards: the workers, who would have to load
    # TensorFlow for it, are gone before it is needed.
    local = pipeline.options.view_as(StandardOptions).runner == LOCAL_RUNNER
    steps.build(
        pipeline,
        parts / steps.PLAN,
        feature_store,
        plan.num_shards,
        extractor,
        write_shards=not local,
    )
    log = parts / "workers.log"
    try:
        with (
            _quoted_executable(),
            console.stderr_to(log) as screen,
            _progress(feature_store.folder, plan, screen),
        ):
            if local:
                # Takes seconds; needed once the songs are done.
                loading = threading.Thread(target=_load_tensorflow, daemon=True)
                loading.start()
            pipeline.run().wait_until_finish()
            if local:
                loading.join()
    except Exception as error:
        with open(log, "a", encoding="utf-8") as file:
            file.write(f"{error}\n")
        raise UserError(
            f"extraction stopped: {_cause(error)}. Finished songs are kept: mend this "
            f"and run the same command again. The workers' log is {log}"
        ) from error


@contextlib.contextmanager
def _quoted_executable():
    """Beam gives Python's path to a shell as it is; with a space in it that hangs."""
    before, sys.executable = sys.executable, shlex.quote(sys.executable)
    try:
        yield
    finally:
        sys.executable = before


def _load_tensorflow():
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    importlib.import_module("tensorflow")


def _cause(error):
    """The line that tells what happened on a worker, out of Beam's long report."""
    if "Channel closed" in str(error):
        return "a worker process died (killed, or out of memory)"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    causes = [line for line in lines if "Error" in line.split(":")[0]]
    return (causes or lines or [type(error).__name__])[-1]


@contextlib.contextmanager
def _progress(folder, plan, screen):
    """Shows how many songs are done, counting the files that workers finish."""
    from lca_keras.data.update import finished_parts

    before = len(plan.songs) - len(plan.pending)
    begun, stop = finished_parts(folder), threading.Event()
    with console.progress("Features", screen) as show:

        def watch():
            while not stop.wait(_POLL_SECONDS):
                show(before + finished_parts(folder) - begun, len(plan.songs))

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
            show(before + finished_parts(folder) - begun, len(plan.songs))
