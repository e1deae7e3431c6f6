"""Songs of a store as they are, in parts, or put together anew from their stems."""

import functools

import numpy as np

from lca_keras.base.errors import UserError
from lca_keras.data.clips import cut_clips
from lca_keras.data.examples import parse_example, read_record
from lca_keras.data.extraction import STEMS
from lca_keras.features import spectrogram


@functools.lru_cache
def _fetch(columns):
    """Function of the place of a song's record that reads columns, traced once."""
    import tensorflow as tf

    @tf.function
    def fetch(path, offset, size):
        place = tf.data.Dataset.from_tensors((path, offset, size))
        record = place.flat_map(read_record).get_single_element()
        return parse_example(record, columns)

    return fetch


class StemReader:
    """Clips of songs of a store, from any voice and any accompaniment.

    Args:
        store: `lca_keras.data.store.FeatureStore` with stems.
        clip_frames: Int, frames of a clip.
        melody: Whether the clips carry the melody too.
    """

    def __init__(self, store, clip_frames, melody):
        import tensorflow as tf

        self.config = store.config
        self.clip_frames = clip_frames
        self.melody = melody
        self._records = store.records
        self._places = {
            key: (tf.constant(path), *tf.unstack(tf.constant(place, tf.int64)))
            for path, songs in store.locations().items()
            for key, place in songs.items()
        }

    def _read(self, key, columns):
        example = _fetch(columns)(*self._places[key])
        if example["key"].numpy().decode() != key:
            raise UserError("index.json is not that of these shards: delete the store")
        return {name: example[name].numpy() for name in columns}

    def frames(self, voice, band):
        """Frames of what these two songs give, one of which may be `None`."""
        return min(self._records[key].frames for key in (voice, band) if key)

    def kept(self, voice, band):
        """Int array, frames that clips are cut from: with sound in both songs."""
        keys, count = [key for key in (voice, band) if key], self.frames(voice, band)
        kept = [self._records[key].kept_frames(self.config) for key in keys]
        both = functools.reduce(np.intersect1d, kept)
        both = both[both < count]
        # Two songs may take turns.
        return both if len(both) >= self.clip_frames else np.arange(count)

    def starts(self, voice, band):
        """Float array, seconds at which its clips begin."""
        kept = self.kept(voice, band)
        places = spectrogram.clip_starts(len(kept), self.clip_frames)
        return kept[places] * self.config.hop_length / self.config.sample_rate

    def voice_share(self, key):
        """Share of the voice in the power of each clip of a song, `(clips,)`."""
        powers = []
        for column in STEMS:
            levels = self._read(key, (column,))[column][:, self.kept(key, key)]
            clips = cut_clips(spectrogram.stem_power(levels), self.clip_frames).numpy()
            powers.append(clips.sum(axis=(1, 2), dtype="float64"))
        vocals, accompaniment = powers
        return vocals / np.maximum(vocals + accompaniment, np.finfo("float32").tiny)

    def clips(self, voice, band):
        """Network inputs of their clips, float32, with a batch axis.

        A song with itself is the stored mixture, not the sum of its stems.
        """
        if voice == band:
            mel = self._read(voice, ("mel",))["mel"].astype("float32")
        else:
            power, count = 0.0, self.frames(voice, band)
            for key, column in zip((voice, band), STEMS, strict=True):
                if key:
                    levels = self._read(key, (column,))[column][:, :count]
                    power = power + spectrogram.stem_power(levels)
            mel = spectrogram.to_decibels(power, self.config)
        kept = self.kept(voice, band)
        mel = cut_clips(mel[:, kept], self.clip_frames).numpy()[..., None]
        if not self.melody:
            return mel
        from lca_keras.features.melody import UNVOICED, contour

        # The melody is the voice's.
        bands = np.full(self.frames(voice, band), UNVOICED)
        if voice:
            bands = self._read(voice, ("melody",))["melody"][: len(bands)]
        drawn = contour(bands[kept], self.config.mel_bins)
        melody = cut_clips(drawn, self.clip_frames).numpy()[..., None]
        return {"mel_spectrogram": mel, "melody": melody.astype("float32")}
