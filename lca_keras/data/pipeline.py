"""tf.data pipelines: clips of a feature store, in batches."""

import dataclasses

from lca_keras.data.store import parse_example, untuned

# Clips in the shuffle buffer; 5 s clips take 40 KiB each in float16.
_SHUFFLE_CLIPS = 8192
_READ_AHEAD = 4  # Shards read in turn: neighbours in a batch come from many songs.


@dataclasses.dataclass(frozen=True)
class ClipSource:
    """The clips of chosen songs of a store.

    Clips are non-overlapping windows; all full clips of a song are used.

    Attributes:
        store: `lca_keras.data.store.FeatureStore`.
        labels: Dict from song key to class index; other songs are left out.
        clip_frames: Int, frames of a clip.
        melody: Whether the clips carry the melody too. A clip is then a dict of
            `"mel_spectrogram"` and `"melody"`, otherwise the spectrogram alone.
    """

    store: object
    labels: dict[str, int]
    clip_frames: int
    melody: bool = False

    @property
    def num_clips(self):
        """Number of clips in one pass."""
        frames = (self.store.records[key].frames for key in self.labels)
        return sum(count // self.clip_frames for count in frames)

    def _songs(self, shards):
        """Dataset of (features, label, key), features as `parse_example` gives them."""
        import tensorflow as tf

        keys = tf.constant(list(self.labels))
        labels = tf.constant(list(self.labels.values()), tf.int64)
        table = tf.lookup.StaticHashTable(
            tf.lookup.KeyValueTensorInitializer(keys, labels), default_value=-1
        )

        def parse(serialized):
            example = parse_example(serialized, self.melody)
            key = example.pop("key")
            return example, table.lookup(key), key

        songs = shards.interleave(
            tf.data.TFRecordDataset,
            cycle_length=_READ_AHEAD,
            num_parallel_calls=_READ_AHEAD,
            deterministic=True,
        )
        songs = songs.map(parse, num_parallel_calls=2, deterministic=True)
        return songs.filter(lambda features, label, key: label >= 0)

    def _cut(self, features, label, key):
        """Dataset of a song's clips, features as in `_songs`."""
        import tensorflow as tf

        clips = {"mel": cut_clips(features["mel"], self.clip_frames)}
        if self.melody:
            melody = cut_clips(features["melody"][None], self.clip_frames)
            clips["melody"] = melody[:, 0]
        count = tf.shape(clips["mel"])[0]
        label = tf.repeat(tf.cast(label, tf.int32), count)
        return tf.data.Dataset.from_tensor_slices((clips, label, tf.repeat(key, count)))

    def _network_input(self, clips, label, key):
        """A batch of stored clips as float32, with a channel axis."""
        import tensorflow as tf

        mel = tf.cast(clips["mel"], tf.float32)[..., None]
        bins = self.store.config.mel_bins
        mel = tf.ensure_shape(mel, (None, bins, self.clip_frames, 1))
        if not self.melody:
            return mel, label, key
        # The band -1, unvoiced, becomes a column of zeros.
        bands = tf.cast(clips["melody"], tf.int32)
        melody = tf.one_hot(bands, bins, axis=1)[..., None]
        return {"mel_spectrogram": mel, "melody": melody}, label, key

    def training(self, batch_size, seed, first_epoch, epochs):
        """Shuffled batches of many epochs, one after the other.

        The order of an epoch depends on `seed` and the epoch's number alone, so a
        resumed run sees what the uninterrupted one would have seen.

        Args:
            batch_size: Int; an epoch's last batch may be smaller.
            seed: Int.
            first_epoch: Int, epoch to begin with.
            epochs: Int, epoch to end before.

        Returns:
            `tf.data.Dataset` of tuples of float32 `(batch, mel_bins, clip_frames, 1)`
            (two of them with the melody) and int32 `(batch,)`, `steps(batch_size)` an
            epoch.
        """
        import tensorflow as tf

        paths = self.store.shard_paths()
        buffer = max(1, min(self.num_clips, _SHUFFLE_CLIPS))

        def shuffled(epoch):
            # Of this function's graph: the program's own seed has no say. Not zero,
            # beside which `shuffle` takes no tensor.
            tf.random.set_seed(1 + seed)
            shards = tf.data.Dataset.from_tensor_slices(paths)
            shards = shards.shuffle(len(paths), 2 * epoch)
            clips = self._songs(shards).flat_map(self._cut)
            return clips.shuffle(buffer, 2 * epoch + 1).batch(batch_size)

        batches = tf.data.Dataset.range(first_epoch, epochs).flat_map(shuffled)
        batches = batches.map(self._network_input, num_parallel_calls=2)
        batches = batches.map(lambda clips, label, key: (clips, label)).prefetch(4)
        return untuned(batches)

    def ordered(self, batch_size):
        """All clips once, songs in store order, clips in time order.

        Args:
            batch_size: Int.

        Returns:
            `tf.data.Dataset` of (clips, label, key) as in `training`, with the song's
            key (string) for every clip.
        """
        import tensorflow as tf

        shards = tf.data.Dataset.from_tensor_slices(self.store.shard_paths())
        clips = self._songs(shards).flat_map(self._cut).batch(batch_size)
        clips = clips.map(self._network_input, num_parallel_calls=2).prefetch(2)
        # Known to Keras, it does not warn of data that ran out.
        size = tf.data.experimental.assert_cardinality(self.steps(batch_size))
        return untuned(clips.apply(size))

    def steps(self, batch_size):
        """Batches of one pass."""
        return -(-self.num_clips // batch_size)


def cut_clips(mel, clip_frames):
    """Cuts a spectrogram into its full, non-overlapping clips, inside a graph.

    Args:
        mel: Tensor `(mel_bins, frames)`, of any type.
        clip_frames: Int.

    Returns:
        Tensor `(frames // clip_frames, mel_bins, clip_frames)`.
    """
    import tensorflow as tf

    bins = tf.shape(mel)[0]
    count = tf.shape(mel)[1] // clip_frames
    clips = tf.reshape(mel[:, : count * clip_frames], (bins, count, clip_frames))
    return tf.transpose(clips, (1, 0, 2))
