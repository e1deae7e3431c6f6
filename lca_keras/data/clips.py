"""tf.data pipelines: clips of a feature store, in batches."""

import dataclasses
import functools

import numpy as np

from lca_keras.audio import features
from lca_keras.config import AugmentConfig
from lca_keras.data import augment as augmentation
from lca_keras.data.examples import parse_example, read_record, untuned
from lca_keras.data.extraction import STEMS
from lca_keras.errors import UserError

# Clips in the shuffle buffer; 5 s clips take 40 KiB each in float16, three times that
# with stems.
_SHUFFLE_CLIPS = 8192
_OTHER_STREAM = 1 << 40  # Added to an epoch's seeds, which are far below.
_READ_AHEAD = 4  # Shards read in turn: neighbours in a batch come from many songs.


@dataclasses.dataclass(frozen=True)
class ClipSource:
    """The clips of chosen songs of a store; the other songs are not read.

    All full clips of a song that have sound are used.

    Attributes:
        store: `lca_keras.data.store.FeatureStore`.
        labels: Dict from song key to class index; other songs are left out.
        clip_frames: Int, frames of a clip.
        melody: Whether the clips carry the melody too. A clip is then a dict of
            `"mel_spectrogram"` and `"melody"`, otherwise the spectrogram alone.
        hop_frames: Optional int, frames from one clip to the next; without it clips
            don't overlap.
    """

    store: object
    labels: dict[str, int]
    clip_frames: int
    melody: bool = False
    hop_frames: int | None = None

    @property
    def num_clips(self):
        """Number of clips in one pass."""
        return sum(self._clips_of(key) for key in self.labels)

    def _clips_of(self, key):
        return len(self.clip_numbers(key))

    def clip_numbers(self, key):
        """Int array, the clips of a song that are used, counted from its beginning."""
        record = self.store.records[key]
        sounding = record.sounding_clips(self.clip_frames, self.hop_frames)
        return np.flatnonzero(sounding)

    @functools.cached_property
    def _index(self):
        """Every song of every shard, ours or not, as columns; and the shards' ends.

        Ours alone would be read in another order: the songs of a shard take turns
        with those of its neighbours, place by place.
        """
        rows, ends = [], [0]
        for path, songs in self.store.locations().items():
            for key, (offset, size) in songs.items():
                rows.append((path, key, offset, size, self.labels.get(key, -1)))
            ends.append(len(rows))
        paths, keys, *numbers = zip(*rows, strict=True)
        offsets, sizes, labels = (np.array(column, "int64") for column in numbers)
        columns = {"path": np.array(paths), "key": np.array(keys), "offset": offsets}
        return {**columns, "size": sizes, "label": labels}, np.array(ends, "int64")

    def _entries(self, shards):
        """Dataset of the index's rows that are ours, for a dataset of shard numbers."""
        import tensorflow as tf

        columns, ends = self._index
        columns = {name: tf.constant(column) for name, column in columns.items()}
        ends = tf.constant(ends)

        def of_shard(number):
            rows = slice(ends[number], ends[number + 1])
            part = {name: column[rows] for name, column in columns.items()}
            return tf.data.Dataset.from_tensor_slices(part)

        entries = shards.interleave(of_shard, _READ_AHEAD)
        return entries.filter(lambda entry: entry["label"] >= 0)

    @functools.cached_property
    def order(self):
        """Keys of the songs in the order of `ordered`."""
        entries = self._entries(self._shards())
        return [entry["key"].decode() for entry in entries.as_numpy_iterator()]

    @functools.cached_property
    def clip_labels(self):
        """Int array `(clips,)`, the class of each clip in the order of `ordered`."""
        labels = [self.labels[key] for key in self.order]
        return np.repeat(labels, [self._clips_of(key) for key in self.order])

    @functools.cached_property
    def clips_by_song(self):
        """Dict from song key to the indices of its clips in `ordered`."""
        ends = np.cumsum([self._clips_of(key) for key in self.order])
        indices = np.split(np.arange(ends[-1]), ends[:-1])
        return dict(zip(self.order, indices, strict=True))

    def _shards(self):
        import tensorflow as tf

        return tf.data.Dataset.range(len(self._index[1]) - 1)

    @property
    def _columns(self):
        return ("mel", "melody") if self.melody else ("mel",)

    def _clips(self, shards, columns):
        """Dataset of (clip, label), chosen columns of what is stored.

        The spectrogram is always among them: it tells which clips have sound.
        """
        songs = self._entries(shards).interleave(
            self._read,
            _READ_AHEAD,
            num_parallel_calls=_READ_AHEAD,
            deterministic=True,
        )
        parse = functools.partial(self._parse, columns)
        songs = songs.map(parse, num_parallel_calls=2, deterministic=True)
        return songs.flat_map(self._cut)

    def _read(self, entry):
        record = read_record(entry["path"], entry["offset"], entry["size"])
        return record.map(lambda serialized: (serialized, entry["key"], entry["label"]))

    def _parse(self, columns, serialized, key, label):
        import tensorflow as tf

        example = parse_example(serialized, columns)
        # Otherwise songs would be learned under each other's names.
        same = tf.debugging.assert_equal(
            example.pop("key"),
            key,
            "index.json is not that of these shards: delete the store",
        )
        with tf.control_dependencies([same]):
            return example, tf.identity(label)

    def _cut(self, columns, label):
        """Dataset of a song's clips, columns as `parse_example` gives them.

        Stems come with their maximum over the song, `"vocals_peak"` say.
        """
        import tensorflow as tf

        mel = tf.cast(columns["mel"], tf.float32)[None]
        frames, hop = self.clip_frames, self.hop_frames
        sounding = sounding_clips(mel, frames, self.store.config, hop)[0]
        count = tf.math.count_nonzero(sounding)
        clips = {}
        for name, array in columns.items():
            if name == "melody":
                cut = cut_clips(array[None], frames, hop)[:, 0]
            else:
                cut = cut_clips(array, frames, hop)
            clips[name] = tf.boolean_mask(cut, sounding)
            if name in STEMS:
                clips[f"{name}_peak"] = tf.repeat(tf.reduce_max(array), count)
        labels = tf.repeat(tf.cast(label, tf.int32), count)
        return tf.data.Dataset.from_tensor_slices((clips, labels))

    def _network_input(self, clips, label):
        """A batch of stored clips as float32, with a channel axis."""
        import tensorflow as tf

        mel = tf.cast(clips["mel"], tf.float32)[..., None]
        bins = self.store.config.mel_bins
        mel = tf.ensure_shape(mel, (None, bins, self.clip_frames, 1))
        if not self.melody:
            return mel, label
        # The band -1, unvoiced, becomes a column of zeros.
        bands = tf.cast(clips["melody"], tf.int32)
        melody = tf.one_hot(bands, bins, axis=1)[..., None]
        return {"mel_spectrogram": mel, "melody": melody}, label

    def training(self, batch_size, seed, first_epoch, epochs, augment=None):
        """Shuffled batches of many epochs, one after the other.

        The order of an epoch, and what is drawn to augment its clips, depend on `seed`
        and the epoch's number alone, so a resumed run sees what the uninterrupted one
        would have seen. Partners for remixing are clips of this source.

        Args:
            batch_size: Int; an epoch's last batch may be smaller.
            seed: Int.
            first_epoch: Int, epoch to begin with.
            epochs: Int, epoch to end before.
            augment: Optional `lca_keras.config.AugmentConfig`.

        Returns:
            `tf.data.Dataset` of tuples of float32 `(batch, mel_bins, clip_frames, 1)`
            (two of them with the melody) and int32 `(batch,)`, `steps(batch_size)` an
            epoch.

        Raises:
            UserError: What the augmentation needs is not there.
        """
        import tensorflow as tf

        count = len(self._index[1]) - 1
        buffer = max(1, min(self.num_clips, _SHUFFLE_CLIPS))
        augment = augment or AugmentConfig()
        if "remix" in augment.kinds and self.store.config.source != "stems":
            raise UserError(
                f"{self.store.folder} has no stems, which remixing needs: extract "
                "features of --source stems"
            )
        apply = self._augmented(augment)

        def shuffled(epoch, columns, stream=0):
            shards = self._shards().shuffle(count, stream + 2 * epoch)
            clips = self._clips(shards, columns)
            return clips.shuffle(buffer, stream + 2 * epoch + 1).batch(batch_size)

        def augmented(epoch):
            # Of this function's graph: the program's own seed has no say. Not zero,
            # beside which `shuffle` takes no tensor.
            tf.random.set_seed(1 + seed)
            if "remix" not in augment.kinds:
                batches = shuffled(epoch, self._columns)
                if not augment.kinds:
                    return batches
                partners = tf.data.Dataset.from_tensors(({}, 0)).repeat()
            else:
                batches = shuffled(epoch, (*self._columns, "vocals"))
                # Shuffled by itself: any clip may come under any voice.
                partners = shuffled(epoch, ("mel", "accompaniment"), _OTHER_STREAM)
            steps = tf.data.Dataset.zip((batches, partners)).enumerate()

            def step(number, both):
                (clips, label), (partners, _) = both
                seeds = tf.stack([tf.constant(seed, tf.int64), epoch])
                seeds = tf.random.fold_in(seeds, number)
                return apply(clips, partners, seeds), label

            return steps.map(step, num_parallel_calls=2, deterministic=True)

        batches = tf.data.Dataset.range(first_epoch, epochs).flat_map(augmented)
        batches = batches.map(self._network_input, num_parallel_calls=2)
        return untuned(batches.prefetch(4))

    def _augmented(self, augment):
        """Function of a batch of clips, a batch of partners and seeds: the clips."""
        import tensorflow as tf

        shape = (self.store.config.mel_bins, self.clip_frames)
        masks = None
        if "specaugment" in augment.kinds:
            masks = augmentation.SpecAugment(augment, shape)

        def apply(clips, partners, seeds):
            mel = tf.ensure_shape(tf.cast(clips["mel"], tf.float32), (None, *shape))
            if "remix" in augment.kinds:
                voices = {**_as_float32(clips), "mel": mel}
                others = _as_float32(partners)
                mel = augmentation.remix(
                    voices, others, seeds, augment, self.store.config
                )
            if masks is not None:
                mel = masks(mel, tf.random.fold_in(seeds, 1))
            return {**clips, "mel": mel}

        return apply

    def ordered(self, batch_size):
        """All clips once, songs in the order of `order`, clips in time order.

        Args:
            batch_size: Int.

        Returns:
            `tf.data.Dataset` of (clips, label) as in `training`.
        """
        import tensorflow as tf

        clips = self._clips(self._shards(), self._columns).batch(batch_size)
        clips = clips.map(self._network_input, num_parallel_calls=2).prefetch(2)
        # Known to Keras, it does not warn of data that ran out.
        size = tf.data.experimental.assert_cardinality(self.steps(batch_size))
        return untuned(clips.apply(size))

    def steps(self, batch_size):
        """Batches of one pass."""
        return -(-self.num_clips // batch_size)


def _as_float32(clips):
    """The stems of a batch in float32, and their peaks."""
    import tensorflow as tf

    return {
        name: tf.cast(value, tf.float32)
        for name, value in clips.items()
        if name.removesuffix("_peak") in STEMS
    }


def sounding_clips(mel, clip_frames, config, hop_frames=None):
    """`lca_keras.audio.features`' functions of that name, inside a graph.

    Args:
        mel: Float32 tensor `(songs, mel_bins, frames)`, decibels; songs whose values
            are not finite have no clip with sound.
        clip_frames: Int, frames of a clip.
        config: `lca_keras.config.FeatureConfig`.
        hop_frames: Optional int, frames from one clip to the next.

    Returns:
        Bool tensor `(songs, clips)`.
    """
    import tensorflow as tf

    loudest = tf.reduce_max(mel, axis=1)
    peak = tf.reduce_max(loudest, axis=1, keepdims=True)
    sounding = loudest > peak - np.float32(features.silence_depth(config))
    clips = _windows(sounding, clip_frames, hop_frames)
    sounding = tf.reduce_sum(tf.cast(clips, tf.float32), axis=2)
    enough = sounding >= features.LEAST_SOUND * clip_frames
    finite = tf.reduce_all(tf.math.is_finite(mel), axis=(1, 2))
    return enough & finite[:, None]


def cut_clips(mel, clip_frames, hop_frames=None):
    """Cuts a spectrogram into its full clips, inside a graph.

    `(mel_bins, frames)` -> `(clips, mel_bins, clip_frames)`; see `sounding_clips`.
    """
    import tensorflow as tf

    return tf.transpose(_windows(mel, clip_frames, hop_frames), (1, 0, 2))


def _windows(rows, size, hop):
    """`(rows, frames)` -> `(rows, windows, size)`."""
    import tensorflow as tf

    count, frames = tf.shape(rows)[0], tf.shape(rows)[1]
    if hop in (None, size):
        clips = frames // size
        return tf.reshape(rows[:, : clips * size], (count, clips, size))
    clips = tf.where(frames < size, 0, 1 + (frames - size) // hop)
    starts = hop * tf.range(clips)
    return tf.gather(rows, starts[:, None] + tf.range(size), axis=1)
