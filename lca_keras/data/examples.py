"""Songs as `tf.train.Example`s: written, parsed, and found in a TFRecord shard."""

import os
import struct

import numpy as np

# Columns of numbers: the type that they are stored in, and whether they have a row for
# each mel band. All have a column for each frame of the mixture.
_COLUMNS = {
    "mel": ("<f2", True),
    "vocals": ("<f2", True),
    "accompaniment": ("<f2", True),
    "melody": ("<i2", False),
}


def to_example(key, record, arrays, config):
    """Serialises a song as the bytes of a `tf.train.Example`.

    Args:
        key: Song key.
        record: `lca_keras.data.store.Record`.
        arrays: Dict, as in `lca_keras.data.extraction.SongFeatures`.
        config: `lca_keras.base.config.FeatureConfig`.
    """
    import tensorflow as tf

    def data(value):
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))

    def text(value):
        return data(value.encode("utf-8", "surrogateescape"))

    feature = {
        "key": text(key),
        "artist": text(record.artist),
        "album": text(record.album),
        "song": text(record.song),
        "source_path": text(record.path),
        "content_hash": text(record.content_hash),
        "feature_config": text(config.digest),
        "duration": tf.train.Feature(
            float_list=tf.train.FloatList(value=[record.duration])
        ),
        "mel_shape": tf.train.Feature(
            int64_list=tf.train.Int64List(value=arrays["mel"].shape)
        ),
    }
    for name, array in arrays.items():
        dtype, _ = _COLUMNS[name]
        feature[name] = data(np.ascontiguousarray(array, dtype).tobytes())
    example = tf.train.Example(features=tf.train.Features(feature=feature))
    # Deterministic, so that equal stores are equal files.
    return example.SerializeToString(deterministic=True)


def parse_example(serialized, columns=("mel",)):
    """Reads `to_example`'s form, a scalar string, inside a graph.

    Args:
        serialized: String tensor, scalar.
        columns: Names of the arrays to read; `"melody"` and the stems `"vocals"` and
            `"accompaniment"` are there in stores that were made with them.

    Returns:
        Dict with `"key"` (string) and the columns: float16 `(mel_bins, frames)`, the
        melody int16 `(frames,)`.
    """
    import tensorflow as tf

    spec = {
        "key": tf.io.FixedLenFeature([], tf.string, ""),
        "mel_shape": tf.io.FixedLenFeature([2], tf.int64),
        **{name: tf.io.FixedLenFeature([], tf.string) for name in columns},
    }
    parsed = tf.io.parse_single_example(serialized, spec)
    example = {"key": parsed["key"]}
    for name in columns:
        dtype, by_band = _COLUMNS[name]
        array = tf.io.decode_raw(parsed[name], np.dtype(dtype).type)
        example[name] = tf.reshape(array, parsed["mel_shape"]) if by_band else array
    return example


def read_example(serialized):
    """Reads `to_example`'s form outside of a graph.

    Args:
        serialized: Bytes.

    Returns:
        Dict with the features that are text, `"duration"`, and the dict `"arrays"` as
        in `lca_keras.data.extraction.SongFeatures`.
    """
    import tensorflow as tf

    features = tf.train.Example.FromString(serialized).features.feature
    shape = tuple(features["mel_shape"].int64_list.value)
    found, arrays = {"duration": features["duration"].float_list.value[0]}, {}
    for name, feature in features.items():
        if name in _COLUMNS:
            dtype, by_band = _COLUMNS[name]
            array = np.frombuffer(feature.bytes_list.value[0], dtype)
            arrays[name] = array.reshape(shape) if by_band else array
        elif feature.bytes_list.value:
            content = feature.bytes_list.value[0]
            found[name] = content.decode("utf-8", "surrogateescape")
    return {**found, "arrays": arrays}


def untuned(dataset):
    """A dataset without TensorFlow's tuning of its buffers and threads.

    There is nothing to tune in our pipelines, and the tuner costs seconds. Taking an
    iterator down wakes the tuner's thread *before* it is called cancelled (TensorFlow
    2.21, `CancellationManager::StartCancelWithStatus`), so on a busy processor that
    thread may look too early and sleep on, for up to a minute that the program waits.

    Args:
        dataset: `tf.data.Dataset`, whole: options inside of `flat_map` do not count.

    Returns:
        `tf.data.Dataset` of the same elements.
    """
    import tensorflow as tf

    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)


def record_offsets(path):
    """Where the records of a TFRecord file begin, and its end; reads headers only.

    A record is its length (uint64), a checksum of that (uint32), the bytes, and a
    checksum of these (uint32).

    Raises:
        ValueError: The lengths do not add up to the size of the file.
    """
    size, offsets = os.path.getsize(path), [0]
    with open(path, "rb", buffering=0) as file:
        while offsets[-1] < size:
            file.seek(offsets[-1])
            header = file.read(8).ljust(8, b"\xff")
            offsets.append(offsets[-1] + 16 + struct.unpack("<Q", header)[0])
    if offsets[-1] != size:
        raise ValueError(f"{path} is no whole TFRecord file")
    return offsets


def read_record(path, offset, size):
    """Reads one record of a TFRecord file inside a graph, with its checksums.

    `offset` and `size` are int64 tensors, bytes; the size includes header and
    checksums. Returns a `tf.data.Dataset` of one scalar string.
    """
    import tensorflow as tf

    # `tf.data.TFRecordDataset` offers no offset; the operation behind it does.
    variant = tf.raw_ops.TFRecordDatasetV2(
        filenames=[path], compression_type="", buffer_size=size, byte_offsets=[offset]
    )
    records = tf.data.experimental.from_variant(variant, tf.TensorSpec((), tf.string))
    return records.take(1)
