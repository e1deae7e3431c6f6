"""Songs as TFX passes them: records of a feature store in files by part, and back."""

import pathlib

from lca_keras.base import files
from lca_keras.base.errors import UserError
from lca_keras.data import split
from lca_keras.data.corpus import Corpus
from lca_keras.data.store import FeatureStore
from lca_keras.data.update import WritableStore

# The parts of a corpus by the names of TFX's splits.
SPLITS = {"train": "train", "eval": "validation", "test": "test"}


def write_splits(store, split_file, folder):
    """Writes a store's records to `FOLDER/SPLIT/songs.tfrecord`, for ImportExampleGen.

    `split_file` is a CSV of the parts, as in a run folder or an artefact of ExampleGen.
    Returns a dict from split to the number of its songs.
    """
    import tensorflow as tf

    store = FeatureStore.open(store)
    songs = [record.as_song for record in store.records.values()]
    part_of = split.read_split(split_file, songs, partial=True)
    counts = dict.fromkeys(SPLITS, 0)
    with files.atomic_path(folder) as temporary:
        for name, part in SPLITS.items():
            path = temporary / name / "songs.tfrecord"
            path.parent.mkdir(parents=True)
            with tf.io.TFRecordWriter(str(path)) as writer:
                for shard, places in store.locations().items():
                    records = tf.data.TFRecordDataset(shard)
                    for key, record in zip(places, records, strict=True):
                        if part_of.get(key) == part:
                            writer.write(record.numpy())
                            counts[name] += 1
    return counts


def read_splits(patterns, features, folder):
    """The songs of some splits as a `Corpus`, and a dict from song key to part.

    `patterns` is a dict from split to patterns of TFRecord files, gzipped as TFX writes
    them or not; `folder` becomes the store. Records of other `features` and a song in
    two splits are errors.
    """
    import tensorflow as tf

    examples, part_of = [], {}
    for name, listed in patterns.items():
        for path in sorted(tf.io.gfile.glob(listed)):
            kind = "GZIP" if path.endswith(".gz") else ""
            for record in tf.data.TFRecordDataset(path, kind):
                examples.append((record.numpy(), SPLITS[name]))
    store = WritableStore(pathlib.Path(folder), features)
    keys = store.take_examples([example for example, _ in examples])
    for key, (_, part) in zip(keys, examples, strict=True):
        if part_of.setdefault(key, part) != part:
            label = store.records[key].as_song.label
            raise UserError(f"{label} is in two splits, {part_of[key]} and {part}")
    songs = sorted(record.as_song for record in store.records.values())
    return Corpus(store, songs, {}, {}, []), part_of
