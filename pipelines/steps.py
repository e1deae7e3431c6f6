"""Feature extraction as a Beam pipeline: what runs on the workers.

    plan.pickle -> song -> parts/KEY.npz -> (shard, record) -> shard

The corpus and the store lie on a file system that all workers see. Every step writes
files that appear whole and are the same whoever writes them, so that a step may run
twice, as runners are free to do, and a pipeline that was killed goes on.
"""

import pathlib
import pickle

import apache_beam as beam

from lca_keras.data import update
from lca_keras.data.store import Record

PLAN = "plan.pickle"


def write_plan(path, plan):
    """Writes a `lca_keras.data.update.Plan`.

    To a file, since runners limit the size of a pipeline's own description.
    """
    pathlib.Path(path).write_bytes(pickle.dumps(plan))


class ReadPlan(beam.DoFn):
    """Reads a plan: pending songs, and under `"there"` the records that exist."""

    def process(self, path):
        """Yields `Song`s, and tagged tuples (key, `Record`, whether it is a part)."""
        plan = pickle.loads(pathlib.Path(path).read_bytes())
        yield from plan.pending
        for key, record in plan.records.items():
            yield beam.pvalue.TaggedOutput("there", (key, record, key in plan.parts))


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
        | "Read plan" >> beam.ParDo(ReadPlan()).with_outputs("there", main="pending")
    )
    computed = (
        planned.pending
        # Spreads the songs over the workers.
        | "Spread" >> beam.Reshuffle()
        | "Extract" >> beam.ParDo(ExtractSong(str(feature_store.folder), extractor))
    )
    _ = (
        (computed, planned.there)
        | "All songs" >> beam.Flatten()
        | "By shard" >> beam.Map(lambda row: (update.shard_of(row[0], count), row))
        | "Group" >> beam.GroupByKey()
        | "Write" >> beam.ParDo(WriteShard(feature_store.for_workers(), count))
    )
