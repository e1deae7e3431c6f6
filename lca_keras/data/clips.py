"""tf.data pipelines: clips of a feature store, in batches."""

import dataclasses
import functools

import numpy as np

from lca_keras.base.config import AugmentConfig
from lca_keras.base.errors import UserError
from lca_keras.data import augment as augmentation
from lca_keras.data.examples import parse_example, read_record, untuned
from lca_keras.data.extraction import STEMS
from lca_keras.features import spectrogram

# Clips in the shuffle buffer; 5 s clips take 40 KiB each in float16, three times that
# with stems.
_SHUFFLE_CLIPS = 8192
_OTHER_STREAM = 1 << 40  # Added to an epoch's seeds, which are far below.
_READ_AHEAD = 4  # Shards read in turn: neighbours in a batch come from many songs.


@dataclasses.dataclass(frozen=True)
class ClipSource:
    """The clips of chosen songs of a store; the other songs are not read.

    All full clips of a song are used, once silence is cut out of it
    (`lca_keras.features.spectrogram.kept_frames`).

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
        return len(self.clip_starts(key))

    def clip_starts(self, key):
        """Int array, the frames of a song at which its clips begin."""
        kept = self.store.records[key].kept_frames(self.store.config)
        places = spectrogram.clip_starts(len(kept), self.clip_frames, self.hop_frames)
        return kept[places]

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

        The spectrogram is always among them: it tells where sound is.
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
        order, kept = sound_first(mel, self.store.config)
        order = order[0, : kept[0]]
        clips = {}
        for name, array in columns.items():
            sounding = tf.gather(array, order, axis=-1)
            if name == "melody":
                clips[name] = cut_clips(sounding[None], frames, hop)[:, 0]
            else:
                clips[name] = cut_clips(sounding, frames, hop)
            count = tf.shape(clips[name])[0]
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
            augment: Optional `lca_keras.base.config.AugmentConfig`.

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
        if "remix" in augment.kinds:
            self._check_stems("remixing needs them")
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

    def ordered_stems(self, batch_size):
        """The stems of all clips once, in the order of `ordered`.

        Args:
            batch_size: Int.

        Returns:
            `tf.data.Dataset` of dicts with `"vocals"` and `"accompaniment"`, float32
            `(batch, mel_bins, clip_frames)`, decibels of power.

        Raises:
            UserError: The store has none.
        """
        self._check_stems("they are asked for")
        clips = self._clips(self._shards(), ("mel", *STEMS)).batch(batch_size)

        def stems(clips, label):
            return {name: _as_float32(clips)[name] for name in STEMS}

        return untuned(clips.map(stems))

    def _check_stems(self, why):
        if self.store.config.source != "stems":
            raise UserError(
                f"{self.store.folder} has no stems, and {why}: extract features of "
                "--source stems"
            )

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


def sound_first(mel, config, frames=None):
    """Finds the frames that clips are cut from, inside a graph.

    As `lca_keras.features.spectrogram.kept_frames`, for many songs.

    Args:
        mel: Float32 tensor `(songs, mel_bins, frames)`, decibels.
        config: `lca_keras.base.config.FeatureConfig`.
        frames: Optional int tensor `(songs,)`, frames of each song; none of those that
            follow them is kept.

    Returns:
        Int32 tensor `(songs, frames)`, each song's frames, first those that are kept
        and then the others, each in time order; and int32 `(songs,)`, how many are
        kept. None are of a song whose values are not finite.
    """
    import tensorflow as tf

    inside = tf.ones_like(mel[:, 0], tf.bool)
    if frames is not None:
        inside = tf.sequence_mask(frames, tf.shape(mel)[2])
        mel = tf.where(inside[:, None], mel, mel.dtype.min)
    loudest = tf.reduce_max(mel, axis=1)
    peak = tf.reduce_max(loudest, axis=1, keepdims=True)
    least = peak - np.float32(spectrogram.silence_depth(config))
    least = tf.maximum(least, np.float32(spectrogram.silence_floor(config)))
    sounding = tf.cast(loudest > least, tf.int32)
    # Frames at which a pause may begin, and then all frames of these pauses.
    size = spectrogram.pause_frames(config)
    silent = tf.pad(1 - sounding, [[0, 0], [0, size - 1]])
    begins = tf.cast(_window_sums(silent, size) == size, tf.int32)
    pauses = _window_sums(tf.pad(begins, [[0, 0], [size - 1, 0]]), size)
    before = tf.cumsum(sounding, axis=1)
    after = tf.cumsum(sounding, axis=1, reverse=True)
    left_out = (pauses > 0) | (before == 0) | (after == 0)
    left_out = tf.cast(left_out & inside, tf.int32)
    edge = spectrogram.edge_frames(config)
    left_out = tf.pad(left_out, [[0, 0], [edge, edge]])
    kept = (_window_sums(left_out, 2 * edge + 1) == 0) & inside
    kept &= tf.reduce_all(tf.math.is_finite(mel), axis=(1, 2))[:, None]
    order = tf.argsort(tf.cast(~kept, tf.int32), axis=1, stable=True)
    return order, tf.math.count_nonzero(kept, axis=1, dtype=tf.int32)


def _window_sums(rows, size):
    """`(rows, frames)` -> `(rows, frames - size + 1)`, sums over windows."""
    import tensorflow as tf

    sums = tf.pad(tf.cumsum(rows, axis=1), [[0, 0], [1, 0]])
    return sums[:, size:] - sums[:, :-size]


def cut_clips(mel, clip_frames, hop_frames=None):
    """Cuts a spectrogram into its full clips, inside a graph.

    `(mel_bins, frames)` -> `(clips, mel_bins, clip_frames)`; clips begin as
    `lca_keras.features.spectrogram.clip_starts` says.
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
