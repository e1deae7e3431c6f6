"""Computes the features that a store lacks, on this machine or with Beam on others.

The corpus and the store lie on a file system that all workers see. Every step writes
files that appear whole and are the same whoever writes them, so that a step may run
twice, as runners are free to do, and a pipeline that was killed goes on.
"""

import contextlib
import copy
import dataclasses
import functools
import json
import logging
import pathlib

from lca_keras.base import console, processes
from lca_keras.base.errors import UserError
from lca_keras.data import update
from lca_keras.data.catalogue import Song
from lca_keras.data.store import Record


def _unseen(screen):
    return contextlib.nullcontext(lambda done, total: None)


def extract(
    songs,
    folder,
    extractor,
    workers=None,
    beam_options=None,
    others=(),
    shown=_unseen,
):
    """Brings a feature store, whose path is absolute, up to date.

    `workers` is the number of processes; by default it is this one. With
    `beam_options`, those of Beam's command line, its workers do the work. What
    `others`, folders of stores, have of the same files is taken over. What workers
    write to standard error goes to a log; `shown` gets the stream that it was, and is a
    context manager that yields a function of (done, total).

    Returns:
        Dict from song key to status, `"done"`, `"reused"` or `"failed"`, and why it
        failed or what is doubtful about it.
    """
    feature_store = update.WritableStore(folder, extractor.config)
    with feature_store.locked():
        plan = feature_store.plan(songs, extractor)
        if plan.pending and others:
            feature_store.adopt(plan.pending, extractor, others)
            plan = feature_store.plan(songs, extractor)
        extractor.check(plan.pending)
        new = {song.key for song in plan.pending}
        if plan.pending:
            how = workers or 1, beam_options, shown
            _compute(feature_store, plan, extractor, *how)
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


def _compute(feature_store, plan, extractor, workers, beam_options, shown):
    """Computes what is pending into the store's `parts/`."""
    parts = feature_store.folder / "parts"
    parts.mkdir(exist_ok=True)
    log = parts / "workers.log"
    try:
        with (
            console.stderr_to(log) as screen,
            shown(screen) as show,
            _counting(feature_store.folder, plan, show),
        ):
            if beam_options is not None:
                _run_pipeline(feature_store, plan, extractor, beam_options)
            elif workers > 1:
                _share_out(feature_store.folder, plan.pending, extractor, workers)
            else:
                for song in plan.pending:
                    update.compute_part(feature_store.folder, song, extractor)
    except Exception as error:
        # A full disk takes no report either; its cause is said all the same.
        with contextlib.suppress(OSError), open(log, "a", encoding="utf-8") as file:
            file.write(f"{error}\n")
        raise UserError(
            f"extraction stopped: {_cause(error)}. Finished songs are kept: mend this "
            f"and run the same command again. The workers' log is {log}"
        ) from error


def _cause(error):
    """The line that tells what happened on a worker, out of Beam's long report."""
    if "Channel closed" in str(error):
        return "a worker process died (killed, or out of memory)"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    causes = [line for line in lines if "Error" in line.split(":")[0]]
    return (causes or lines or [type(error).__name__])[-1]


def _counting(folder, plan, show):
    """Tells how many songs are done, counting the files that workers finish."""
    total = len(plan.songs)
    before = total - len(plan.pending) - update.finished_parts(folder)
    return processes.repeatedly(
        lambda: show(before + update.finished_parts(folder), total), seconds=0.5
    )


def _share_out(folder, songs, extractor, workers):
    calls = [(folder, song) for song in songs]
    # Each process loads its networks once. Copies of this one would stop at locks of
    # these networks' libraries.
    prepare = functools.partial(copy.copy, extractor)
    pool = functools.partial(processes.pool, prepare=prepare, spawn=True)
    for number, result in processes.each(_compute_song, calls, workers, pool):
        if result == processes.DIED:
            raise UserError(f"{songs[number].path} {result}")


def _compute_song(extractor, folder, song):
    update.compute_part(folder, song, extractor)


def _run_pipeline(feature_store, plan, extractor, beam_options):
    """By Beam: plan -> song -> `parts/KEY.npz` -> (shard, record) -> shard."""
    # Its reports of each step are of use to those who ask for them.
    logging.getLogger().setLevel(logging.ERROR)
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions

    path, count = feature_store.folder / "parts" / "plan.jsonl", plan.num_shards
    write_plan(path, plan)
    pipeline = beam.Pipeline(options=PipelineOptions(beam_options))
    planned = (
        pipeline
        | "Plan" >> beam.Create([str(path)])
        | "Read plan" >> beam.FlatMap(read_plan).with_outputs("there", main="pending")
    )
    computed = (
        planned.pending
        # Spreads the songs over the workers.
        | "Spread" >> beam.Reshuffle()
        | "Extract" >> beam.FlatMap(extract_song, str(feature_store.folder), extractor)
    )
    _ = (
        (computed, planned.there)
        | "All songs" >> beam.Flatten()
        | "By shard" >> beam.Map(lambda row: (update.shard_of(row[0], count), row))
        | "Group" >> beam.GroupByKey()
        | "Write" >> beam.Map(write_shard, feature_store.for_workers(), count)
    )
    pipeline.run().wait_until_finish()


def write_plan(path, plan):
    """Writes what is pending and what is there, one JSON object a line.

    A file, since runners limit the size of a pipeline's own description.
    """
    with open(path, "w", encoding="utf-8", errors="surrogateescape") as file:
        for song in plan.pending:
            row = {"song": dataclasses.asdict(song)}
            file.write(json.dumps(row, default=str) + "\n")
        for key, record in plan.records.items():
            row = {"record": dataclasses.asdict(record), "key": key}
            file.write(json.dumps({**row, "part": key in plan.parts}) + "\n")


def read_plan(path):
    """Yields the pending `Song`s, and under `"there"` the records that exist.

    These are tagged tuples (key, `Record`, whether it is a part).
    """
    from apache_beam import pvalue

    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        for row in map(json.loads, file):
            if song := row.get("song"):
                for name in ("path", "vocals_path", "accompaniment_path"):
                    song[name] = song[name] and pathlib.Path(song[name])
                yield Song(**song)
            else:
                there = row["key"], Record.from_json(row["record"]), row["part"]
                yield pvalue.TaggedOutput("there", there)


def extract_song(song, folder, extractor):
    """Yields (key, `Record`, true), or nothing for a song without usable audio."""
    result = update.compute_part(folder, song, extractor)
    if isinstance(result, Record):
        yield song.key, result, True


def write_shard(shard, feature_store, count):
    """Writes a shard, of a tuple of its number and of what the steps above yielded."""
    number, rows = shard
    rows = sorted(rows, key=lambda row: row[0])
    records = {key: record for key, record, _ in rows}
    parts = {key for key, _, part in rows if part}
    feature_store.write_shard(number, count, records, parts)
