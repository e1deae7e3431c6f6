"""Songs as `tf.train.Example`s: written, parsed, and found in a TFRecord shard."""

import os
import struct

import numpy as np


def to_example(key, record, arrays, config):
    """Serialises a song as the bytes of a `tf.train.Example`.

    `record` is a `lca_keras.data.store.Record`, `arrays` are as in
    `lca_keras.data.extraction.SongFeatures`.
    """
    import tensorflow as tf

    def data(value):
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))

    def text(value):
        return data(value.encode("utf-8", "surrogateescape"))

    duration = tf.train.FloatList(value=[record.duration])
    feature = {
        "key": text(key),
        "artist": text(record.artist),
        "album": text(record.album),
        "song": text(record.song),
        "source_path": text(record.path),
        "content_hash": text(record.content_hash),
        "feature_config": text(config.digest),
        "duration": tf.train.Feature(float_list=duration),
    }
    passages = np.array(record.passages, "float64")
    for name, array in {**arrays, "passages": passages}.items():
        array = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
        shape = tf.train.Int64List(value=array.shape)
        feature[name] = data(array.tobytes())
        feature[f"{name}/shape"] = tf.train.Feature(int64_list=shape)
        feature[f"{name}/dtype"] = text(array.dtype.name)
    example = tf.train.Example(features=tf.train.Features(feature=feature))
    # Deterministic, so that equal stores are equal files.
    return example.SerializeToString(deterministic=True)


def parse_example(serialized, streams=()):
    """Reads `to_example`'s form, a scalar string, inside a graph.

    Dict with `"key"` (string) and the `lca_keras.features.front_end.Stream`s that are
    asked for, of their shapes and dtypes; a stem is one too.
    """
    import tensorflow as tf

    spec = {"key": tf.io.FixedLenFeature([], tf.string, "")}
    for stream in streams:
        spec[stream.name] = tf.io.FixedLenFeature([], tf.string)
        rank = [len(stream.shape)]
        spec[f"{stream.name}/shape"] = tf.io.FixedLenFeature(rank, tf.int64)
    parsed = tf.io.parse_single_example(serialized, spec)
    example = {"key": parsed["key"]}
    for stream in streams:
        array = tf.io.decode_raw(parsed[stream.name], tf.as_dtype(stream.dtype))
        array = tf.reshape(array, parsed[f"{stream.name}/shape"])
        example[stream.name] = tf.ensure_shape(array, stream.shape)
    return example


def read_example(serialized):
    """Reads `to_example`'s form outside of a graph.

    Dict with the features that are text, `"duration"`, `"passages"`, and the dict
    `"arrays"` as in `lca_keras.data.extraction.SongFeatures`.
    """
    import tensorflow as tf

    features = tf.train.Example.FromString(serialized).features.feature
    found, arrays = {}, {}
    for name, feature in features.items():
        if feature.float_list.value:
            found[name] = feature.float_list.value[0]
        elif f"{name}/shape" in features:
            dtype = np.dtype(features[f"{name}/dtype"].bytes_list.value[0].decode())
            array = np.frombuffer(feature.bytes_list.value[0], dtype)
            arrays[name] = array.reshape(features[f"{name}/shape"].int64_list.value)
        elif feature.bytes_list.value:
            content = feature.bytes_list.value[0]
            found[name] = content.decode("utf-8", "surrogateescape")
    passages = tuple(arrays.pop("passages").tolist())
    return {**found, "passages": passages, "arrays": arrays}


def untuned(dataset):
    """A dataset without TensorFlow's tuning of its buffers and threads.

    There is nothing to tune in our pipelines, and the tuner costs seconds. Taking an
    iterator down wakes the tuner's thread *before* it is called cancelled (TensorFlow
    2.21, `CancellationManager::StartCancelWithStatus`), so on a busy processor that
    thread may look too early and sleep on, for up to a minute that the program waits.

    It is for a whole `tf.data.Dataset`: options inside of `flat_map` do not count.
    """
    import tensorflow as tf

    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)


def record_offsets(path):
    """Where the records of a TFRecord file begin, and its end; reads headers only.

    A record is its length (uint64), a checksum of that (uint32), the bytes, and a
    checksum of these (uint32). A `ValueError` if they do not add up to the file's size.
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
