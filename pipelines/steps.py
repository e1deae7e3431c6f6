"""Feature extraction as a Beam pipeline: what runs on the workers.

    plan.jsonl -> song -> parts/KEY.npz -> (shard, record) -> shard

The corpus and the store lie on a file system that all workers see. Every step writes
files that appear whole and are the same whoever writes them, so that a step may run
twice, as runners are free to do, and a pipeline that was killed goes on.
"""

import dataclasses
import json
import pathlib

import apache_beam as beam

from lca_keras.data import update
from lca_keras.data.catalogue import Song
from lca_keras.data.store import Record

PLAN = "plan.jsonl"


def write_plan(path, plan):
    """Writes what is pending and what is there, one JSON object a line.

    A file, since runners limit the size of a pipeline's own description.

    Args:
        path: File to write.
        plan: `lca_keras.data.update.Plan`.
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
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            row = json.loads(line)
            if "song" in row:
                yield _song(row["song"])
            else:
                there = row["key"], Record.from_json(row["record"]), row["part"]
                yield beam.pvalue.TaggedOutput("there", there)


def _song(row):
    paths = {
        name: pathlib.Path(value)
        for name, value in row.items()
        if name.endswith("path") and value
    }
    return Song(**{**row, **paths})


def extract_song(song, folder, extractor):
    """Computes the features of a song into the `parts/` of a store's folder.

    Yields (key, `Record`, true), or nothing for a song without usable audio.
    """
    result = update.compute_part(folder, song, extractor)
    if isinstance(result, Record):
        yield song.key, result, True


def write_shard(shard, feature_store, count):
    """Writes a shard from parts and from what the store held before.

    Args:
        shard: Tuple of its number and of what the steps above have yielded for it.
        feature_store: `lca_keras.data.update.WritableStore.for_workers()`.
        count: Int, number of shards.
    """
    number, rows = shard
    rows = sorted(rows, key=lambda row: row[0])
    records = {key: record for key, record, _ in rows}
    parts = {key for key, _, part in rows if part}
    feature_store.write_shard(number, count, records, parts)


def build(pipeline, feature_store, plan, extractor):
    """Adds the steps to a pipeline.

    Args:
        pipeline: `beam.Pipeline`.
        feature_store: `lca_keras.data.update.WritableStore`, locked.
        plan: `lca_keras.data.update.Plan` of what the store lacks.
        extractor: `lca_keras.data.extraction.Extractor`.
    """
    path, count = feature_store.folder / "parts" / PLAN, plan.num_shards
    write_plan(path, plan)
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
