"""tf.data pipelines: clips of a feature store, in batches."""

import dataclasses
import functools

import numpy as np

from lca_keras.base.errors import UserError
from lca_keras.base.sections import AugmentConfig
from lca_keras.data import augment as augmentation
from lca_keras.data.examples import parse_example, read_record, untuned
from lca_keras.features import silence
from lca_keras.features.front_end import STEMS, network_input

# Clips in the shuffle buffer; 5 s clips take 40 KiB each in float16, three times that
# with stems.
_SHUFFLE_CLIPS = 8192
_OTHER_STREAM = 1 << 40  # Added to an epoch's seeds, which are far below.
_READ_AHEAD = 4  # Shards read in turn: neighbours in a batch come from many songs.


@dataclasses.dataclass(frozen=True)
class ClipSource:
    """The clips of chosen songs of a store; the other songs are not read.

    All full clips of a song are used, once silence is cut out of it
    (`lca_keras.features.silence`). Frames are those of the front end's first stream.
    """

    store: object  # `lca_keras.data.store.FeatureStore`.
    labels: dict[str, int]  # From song key to class index; other songs are left out.
    clip_frames: int
    # Those that the network takes; a clip of several is a dict. Default is the first.
    streams: tuple[str, ...] = ()
    hop_frames: int | None = None  # To the next clip; without, clips don't overlap.

    def __post_init__(self):
        if not self.streams:
            object.__setattr__(self, "streams", (self.front_end.main.name,))

    @property
    def front_end(self):
        """The `lca_keras.features.front_end.FrontEnd` of the store."""
        return self.store.front_end

    @property
    def shapes(self):
        """Dict from stream to the shape of a clip."""
        shape = self.front_end.clip_shape
        return {name: shape(name, self.clip_frames) for name in self.streams}

    @property
    def num_clips(self):
        """Number of clips in one pass."""
        return sum(self._clips_of(key) for key in self.labels)

    def _clips_of(self, key):
        return len(self.clip_starts(key))

    def clip_starts(self, key):
        """Float array, seconds of a song's sound at which its clips begin."""
        frames = self.store.records[key].frames
        return self.front_end.starts(frames, self.clip_frames, self.hop_frames)

    def clip_times(self, key):
        """The same in seconds of the song, silence included."""
        passages = self.store.records[key].passages
        return silence.song_seconds(passages, self.clip_starts(key))

    @functools.cached_property
    def _index(self):
        """Every song of every shard, ours or not, as columns; and the shards' ends.

        Ours alone would be read in another order: the songs of a shard take turns
        with those of its neighbours, place by place.
        """
        rows, ends = [], [0]
        for path, songs in self.store.locations().items():
            for key, (offset, size) in songs.items():
                clips = self._clips_of(key) if key in self.labels else 0
                rows.append((path, key, offset, size, self.labels.get(key, -1), clips))
            ends.append(len(rows))
        names = ("path", "key", "offset", "size", "label", "clips")
        columns = zip(names, map(np.array, zip(*rows, strict=True)), strict=True)
        return dict(columns), np.array(ends)

    def _entries(self, shards):
        """Dataset of the index's rows that are ours, for a dataset of shard numbers."""
        import tensorflow as tf

        columns, ends = tf.nest.map_structure(tf.constant, self._index)

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

    def _clips(self, shards, names):
        """Dataset of (clip, label), some streams or stems of what is stored."""

        def read(entry):
            record = read_record(entry["path"], entry["offset"], entry["size"])
            return record.map(lambda serialized: (serialized, entry))

        songs = self._entries(shards).interleave(
            read, _READ_AHEAD, num_parallel_calls=_READ_AHEAD, deterministic=True
        )
        parse = functools.partial(self._parse, names)
        songs = songs.map(parse, num_parallel_calls=2, deterministic=True)
        return songs.flat_map(self._cut)

    def _parse(self, names, serialized, entry):
        import tensorflow as tf

        streams = tuple(map(self.front_end.stream, names))
        example = parse_example(serialized, streams)
        # Otherwise songs would be learned under each other's names.
        same = tf.debugging.assert_equal(
            example.pop("key"),
            entry["key"],
            "index.json is not that of these shards: delete the store",
        )
        with tf.control_dependencies([same]):
            return example, tf.cast([entry["label"], entry["clips"]], tf.int32)

    def _cut(self, arrays, label_and_count):
        """Dataset of a song's clips, of arrays as `parse_example` gives them.

        Stems come with their maximum over the song, `"vocals_peak"` say.
        """
        import tensorflow as tf

        front_end, clips = self.front_end, {}
        label, count = tf.unstack(label_and_count)
        hop = (self.hop_frames or self.clip_frames) * front_end.main.hop
        for name, array in arrays.items():
            stream = front_end.stream(name)
            size = front_end.frames_in(stream, self.clip_frames)
            starts = hop * tf.range(count) // stream.hop
            clips[name] = cut_clips(array, stream, starts, size)
            if name in STEMS:
                clips[f"{name}_peak"] = tf.repeat(tf.reduce_max(array), count)
        return tf.data.Dataset.from_tensor_slices((clips, tf.repeat(label, count)))

    def _network_input(self, clips, label):
        """A batch of stored clips as the network takes them, float32."""
        import tensorflow as tf

        found = {
            name: tf.ensure_shape(tf.cast(clips[name], tf.float32), (None, *shape))
            for name, shape in self.shapes.items()
        }
        return network_input(self.streams, found), label

    def training(self, batch_size, seed, first_epoch, epochs, augment=None):
        """Shuffled batches of the epochs `first_epoch` to `epochs - 1`.

        The order of an epoch, and what is drawn to augment its clips, depend on `seed`
        and the epoch's number alone, so a resumed run sees what the uninterrupted one
        would have seen. Partners for remixing are clips of this source. An epoch's last
        batch may be smaller. A `UserError` says that remixing lacks stems.

        Returns:
            `tf.data.Dataset` of tuples of what the network takes, float32 `(batch, …)`
            or a dict of several, and int32 `(batch,)`; `steps(batch_size)` an epoch.
        """
        import tensorflow as tf

        count = len(self._index[1]) - 1
        buffer = max(1, min(self.num_clips, _SHUFFLE_CLIPS))
        augment = augment or AugmentConfig()
        if "remix" in augment.kinds:
            self._check_stems("remixing needs them")
        apply = self._augmented(augment)

        def shuffled(epoch, names, stream=0):
            shards = self._shards().shuffle(count, stream + 2 * epoch)
            clips = self._clips(shards, names)
            return clips.shuffle(buffer, stream + 2 * epoch + 1).batch(batch_size)

        def augmented(epoch):
            # Of this function's graph: the program's own seed has no say. Not zero,
            # beside which `shuffle` takes no tensor.
            tf.random.set_seed(1 + seed)
            if "remix" not in augment.kinds:
                batches = shuffled(epoch, self.streams)
                if not augment.kinds:
                    return batches
                partners = tf.data.Dataset.from_tensors(({}, 0)).repeat()
            else:
                batches = shuffled(epoch, (*self.streams, "vocals"))
                # Shuffled by itself: any clip may come under any voice.
                partners = shuffled(epoch, ("accompaniment",), _OTHER_STREAM)
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

        name = self.front_end.main.name
        shape = self.front_end.clip_shape(name, self.clip_frames)
        masks = None
        if "specaugment" in augment.kinds:
            masks = augmentation.SpecAugment(augment, shape)

        def apply(clips, partners, seeds):
            heard = tf.ensure_shape(tf.cast(clips[name], tf.float32), (None, *shape))
            if "remix" in augment.kinds:
                voices, others = _as_float32(clips), _as_float32(partners)
                heard = augmentation.remix(
                    heard, voices, others, seeds, augment, self.front_end
                )
            if masks is not None:
                heard = masks(heard, tf.random.fold_in(seeds, 1))
            return {**clips, name: heard}

        return apply

    def ordered(self, batch_size):
        """All clips once, songs in the order of `order`, clips in time order.

        A `tf.data.Dataset` of (clips, label) as in `training`.
        """
        import tensorflow as tf

        clips = self._clips(self._shards(), self.streams).batch(batch_size)
        clips = clips.map(self._network_input, num_parallel_calls=2).prefetch(2)
        # Known to Keras, it does not warn of data that ran out.
        size = tf.data.experimental.assert_cardinality(self.steps(batch_size))
        return untuned(clips.apply(size))

    def ordered_stems(self, batch_size):
        """The stems of all clips once, in the order of `ordered`.

        A `tf.data.Dataset` of dicts with `"vocals"` and `"accompaniment"`, float32
        `(batch, …)`, as the front end keeps them; a `UserError` if the store has none.
        """
        self._check_stems("they are asked for")
        clips = self._clips(self._shards(), STEMS).batch(batch_size)

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


def cut_clips(array, stream, starts, size):
    """Cuts clips `(clips, …)` of some frames from a stream of a song, inside a graph.

    They begin at `starts`, frames, an int32 tensor `(clips,)`.
    """
    import tensorflow as tf

    axis = stream.axis
    found = tf.gather(array, starts[:, None] + tf.range(size), axis=axis)
    others = (n for n in range(len(stream.shape) + 1) if n != axis)
    return tf.transpose(found, [axis, *others])
