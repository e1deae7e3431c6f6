"""Computes the features that a store lacks, on this machine or with Beam on others."""

import contextlib
import copy
import functools
import logging
import threading

from lca_keras.base import console, processes
from lca_keras.base.errors import UserError

# None of Beam's: processes of this machine.
LOCAL_RUNNER = "local"
_POLL_SECONDS = 0.5


def extract(songs, folder, extractor, workers=None, beam_options=None, others=()):
    """Brings a feature store up to date.

    Args:
        songs: List of `lca_keras.data.catalogue.Song`.
        folder: Absolute path of the store, which all workers see.
        extractor: `lca_keras.data.extraction.Extractor`.
        workers: Processes of this machine; by default it is this one.
        beam_options: Optional list, those of Beam's command line; its workers then do
            the work.
        others: Folders of stores; what these have of the same files is taken over.

    Returns:
        Dict from song key to status, `"done"`, `"reused"` or `"failed"`, and why it
        failed or what is doubtful about it.

    Raises:
        UserError: A worker failed, a store of other features, a full disk.
    """
    from lca_keras.data.update import WritableStore

    if workers is not None and workers < 1:
        raise UserError(f"--workers must be at least 1, not {workers}")
    feature_store = WritableStore(folder, extractor.config)
    with feature_store.locked():
        plan = feature_store.plan(songs, extractor)
        if plan.pending and others:
            feature_store.adopt(plan.pending, extractor, others)
            plan = feature_store.plan(songs, extractor)
        extractor.check(plan.pending)
        new = {song.key for song in plan.pending}
        if plan.pending:
            _compute(feature_store, plan, extractor, workers or 1, beam_options)
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


def _compute(feature_store, plan, extractor, workers, beam_options):
    """Computes what is pending into the store's `parts/`, with a progress bar."""
    parts = feature_store.folder / "parts"
    parts.mkdir(exist_ok=True)
    log = parts / "workers.log"
    try:
        with (
            console.stderr_to(log) as screen,
            _progress(feature_store.folder, plan, screen),
        ):
            if beam_options is not None:
                _run_pipeline(feature_store, plan, extractor, beam_options)
            elif workers > 1:
                _share_out(feature_store.folder, plan.pending, extractor, workers)
            else:
                for song in plan.pending:
                    _compute_song(extractor, feature_store.folder, song)
    except Exception as error:
        with open(log, "a", encoding="utf-8") as file:
            file.write(f"{error}\n")
        raise UserError(
            f"extraction stopped: {_cause(error)}. Finished songs are kept: mend this "
            f"and run the same command again. The workers' log is {log}"
        ) from error


def _compute_song(extractor, folder, song):
    from lca_keras.data.update import compute_part

    compute_part(folder, song, extractor)


def _share_out(folder, songs, extractor, workers):
    calls = [(folder, song) for song in songs]
    # Each process loads its networks once. Copies of this one would stop at locks of
    # these networks' libraries.
    prepare = functools.partial(copy.copy, extractor)
    pool = functools.partial(processes.pool, prepare=prepare, spawn=True)
    for number, result in processes.each(_compute_song, calls, workers, pool):
        if result == processes.DIED:
            raise UserError(f"{songs[number].path} {result}")


def _run_pipeline(feature_store, plan, extractor, beam_options):
    # Its reports of each step are of use to those who ask for them.
    logging.getLogger().setLevel(logging.ERROR)
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions

    from pipelines import steps

    pipeline = beam.Pipeline(options=PipelineOptions(beam_options))
    steps.build(pipeline, feature_store, plan, extractor)
    pipeline.run().wait_until_finish()


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
