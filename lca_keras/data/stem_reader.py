"""Songs of a store as they are, in parts, or put together anew from their stems."""

import functools

import numpy as np

from lca_keras.base.errors import UserError
from lca_keras.data.examples import parse_example, read_record
from lca_keras.features import silence, spectrogram
from lca_keras.features.front_end import STEMS, network_input


@functools.lru_cache
def _fetch(streams):
    """Function of the place of a song's record that reads streams, traced once."""
    import tensorflow as tf

    @tf.function
    def fetch(path, offset, size):
        place = tf.data.Dataset.from_tensors((path, offset, size))
        record = place.flat_map(read_record).get_single_element()
        return parse_example(record, streams)

    return fetch


class StemReader:
    """Clips of songs of a store, from any voice and any accompaniment.

    What else they are, a `lca_keras.data.clips.ClipSource` of a store with stems says.
    """

    def __init__(self, source):
        import tensorflow as tf

        self.source, self.front_end = source, source.front_end
        self._clip_frames = source.clip_frames
        self._records = source.store.records
        self._places = {
            key: (tf.constant(path), *tf.unstack(tf.constant(place, tf.int64)))
            for path, songs in source.store.locations().items()
            for key, place in songs.items()
        }

    def _read(self, key, names):
        example = _fetch((*map(self.front_end.stream, names),))(*self._places[key])
        if example["key"].numpy().decode() != key:
            raise UserError("index.json is not that of these shards: delete the store")
        return {name: example[name].numpy() for name in names}

    def _starts(self, voice, band):
        """Seconds of sound at which clips of two songs begin, one may be `None`."""
        frames = min(self._records[key].frames for key in (voice, band) if key)
        return self.front_end.starts(frames, self._clip_frames)

    def times(self, voice, band):
        """Float array, seconds at which its clips begin in the song of the voice."""
        passages = self._records[voice or band].passages
        return silence.song_seconds(passages, self._starts(voice, band))

    def voice_share(self, key):
        """Share of the voice in the power of each clip of a song, `(clips,)`."""
        powers = []
        for stem in self._cut(self._read(key, STEMS), key, key).values():
            power = spectrogram.stem_power(stem)
            powers.append(power.reshape(len(power), -1).sum(axis=1, dtype="float64"))
        vocals, accompaniment = powers
        return vocals / np.maximum(vocals + accompaniment, np.finfo("float32").tiny)

    def _cut(self, arrays, voice, band):
        return self.front_end.cut(arrays, self._starts(voice, band), self._clip_frames)

    def clips(self, voice, band):
        """What the network takes of their clips, float32, with a batch axis.

        A song with itself is the stored mixture, not the sum of its stems. Another
        stream than the first one is the voice's; without a voice it is zero.
        """
        main, *others = [stream.name for stream in self.front_end.streams]
        others = [name for name in others if name in self.source.streams]
        arrays = self._read(voice or band, (main, *others))
        if not voice:
            arrays |= {name: np.zeros_like(arrays[name]) for name in others}
        clips = self._cut(arrays, voice, band)
        if voice != band:
            power, axis = 0.0, self.front_end.main.axis
            frames = min(self._records[key].frames for key in (voice, band) if key)
            for key, stem in zip((voice, band), STEMS, strict=True):
                if key:
                    levels = self._read(key, (stem,))[stem]
                    levels = np.take(levels, range(frames), axis)
                    power = power + spectrogram.stem_power(levels)
            clips |= self._cut({main: self.front_end.mixed(power)}, voice, band)
        return network_input(self.source.streams, clips)
