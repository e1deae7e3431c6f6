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


class ReadPlan(beam.DoFn):
    """Reads a plan: pending songs, and under `"there"` the records that exist."""

    def process(self, path):
        """Yields `Song`s, and tagged tuples (key, `Record`, whether it is a part)."""
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            for line in file:
                row = json.loads(line)
                if "song" in row:
                    yield _song(row["song"])
                else:
                    record = Record.from_json(row["record"])
                    yield beam.pvalue.TaggedOutput(
                        "there", (row["key"], record, row["part"])
                    )


def _song(row):
    paths = {
        name: pathlib.Path(value)
        for name, value in row.items()
        if name.endswith("path") and value
    }
    return Song(**{**row, **paths})


class ExtractSong(beam.DoFn):
    """Computes the features of a song into the store's `parts/`.

    Args:
        folder: Folder of the store.
        extractor: `lca_keras.data.extraction.Extractor`.
    """

    def __init__(self, folder, extractor):
        super().__init__()
        self.folder = folder
        self.extractor = extractor

    def process(self, song):
        """Yields (key, `Record`, true), or nothing for a song without usable audio."""
        result = update.compute_part(self.folder, song, self.extractor)
        if isinstance(result, Record):
            yield song.key, result, True


class WriteShard(beam.DoFn):
    """Writes a shard from parts and from what the store held before.

    Args:
        feature_store: `lca_keras.data.update.WritableStore.for_workers()`.
        count: Int, number of shards.
    """

    def __init__(self, feature_store, count):
        super().__init__()
        self.store = feature_store
        self.count = count

    def process(self, shard):
        """Writes the shard unless it is there; yields nothing."""
        number, rows = shard
        rows = sorted(rows, key=lambda row: row[0])
        records = {key: record for key, record, _ in rows}
        parts = {key for key, _, part in rows if part}
        self.store.write_shard(number, self.count, records, parts)
        return ()


def build(pipeline, plan_path, feature_store, count, extractor, write_shards=True):
    """Adds the steps to a pipeline.

    Args:
        pipeline: `beam.Pipeline`.
        plan_path: File that `write_plan` wrote.
        feature_store: `lca_keras.data.update.WritableStore`, locked.
        count: Int, number of shards of the updated store.
        extractor: `lca_keras.data.extraction.Extractor`.
        write_shards: Whether the workers do, or leave it to `commit`.
    """
    planned = (
        pipeline
        | "Plan" >> beam.Create([str(plan_path)])
        | "Read plan" >> beam.ParDo(ReadPlan()).with_outputs("there", main="pending")
    )
    computed = (
        planned.pending
        # Spreads the songs over the workers.
        | "Spread" >> beam.Reshuffle()
        | "Extract" >> beam.ParDo(ExtractSong(str(feature_store.folder), extractor))
    )
    if not write_shards:
        return
    _ = (
        (computed, planned.there)
        | "All songs" >> beam.Flatten()
        | "By shard" >> beam.Map(lambda row: (update.shard_of(row[0], count), row))
        | "Group" >> beam.GroupByKey()
        | "Write" >> beam.ParDo(WriteShard(feature_store.for_workers(), count))
    )
