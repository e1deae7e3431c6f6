"""What a network hears of sound: the front end, which everyone asks.

Silence is cut out of a song first (`lca_keras.features.silence`); a front end makes
frames of the sound that is left, and clips are cut from these.
"""

import abc
import dataclasses
import functools

import numpy as np

from lca_keras.base import registry
from lca_keras.base.errors import UserError

STEMS = ("vocals", "accompaniment")


@dataclasses.dataclass(frozen=True)
class Stream:
    """One of the arrays that a front end makes of sound."""

    name: str  # That of the network's input too.
    shape: tuple  # With `None` in the place of frames: `(128, None, 1)`.
    # In which it is stored; float16 keeps decibels to 0.03. Networks get float32.
    dtype: str = "float16"
    hop: int = 512  # Samples from one frame to the next.
    # Whether the first frame lies at the beginning of the sound and the last one at its
    # end, so that n hops have n + 1 frames.
    centred: bool = True
    # Whether the front end's layer computes it, or whoever asks a model brings it.
    in_graph: bool = True

    @property
    def axis(self):
        """Int, the axis of frames."""
        return self.shape.index(None)

    def sized(self, frames):
        """The shape with so many frames."""
        return tuple(frames if size is None else size for size in self.shape)

    def frames(self, samples):
        """Number of frames of so many samples."""
        return samples // self.hop + self.centred


class FrontEnd(abc.ABC):
    """From samples to what a network hears. The base of all.

    A subclass sets the attributes and says how `frames` are computed; with `layer` it
    runs in exported models, with `mixed` and `mixed_clips` stems can be remixed.

    Attributes:
        sample_rate: Int, Hz, of the samples that it takes.
        streams: Tuple of `Stream`; the first one sets the clock: clips begin at its
            frames, and have so many of them.
        range_db: Float, decibels that it hears below the loudest of a song; what is
            softer is silence.
        frequencies: Float array, Hz, the centres of the first stream's first axis; or
            `None` if that is no axis of frequency.
        mixes_powers: Whether powers of two sounds, added, say what it hears of both
            together. Then stems are stored as decibels of power, and can be remixed.
        signature: Name of the exported signature that takes whole songs' streams.
        unit: What the values of the first stream are, for people.
    """

    sample_rate = 16000
    streams = ()
    range_db = 60.0
    frequencies = None
    mixes_powers = False
    signature = "frames"
    unit = "values of the front end"

    def prepare(self):
        """Loads what the first song would wait for."""
        return None

    @abc.abstractmethod
    def frames(self, sound, stems=None, threads=None):
        """What is heard of a whole song.

        Args:
            sound: `lca_keras.audio.decode.Sound` without silence, or an array
                `(samples,)`.
            stems: Optional dict with the song's `"vocals"` and, if they are to be
                stored, `"accompaniment"`, sounds of the same length.
            threads: Optional int, threads of the computation.

        Returns:
            Dict from stream to array of its shape; with both stems also these, float16.
        """

    def layer(self):
        """The same inside a graph, or `None` if it cannot be.

        It is a function of float32 `(songs, samples)` and int32 `(songs,)`, the samples
        of each, that gives a dict of the streams that are `in_graph`, float32 with a
        batch axis; frames after a song's own hold nothing.
        """
        return None

    def mixed(self, power):
        """What the first stream is of a song with such powers, an array like these.

        Raises:
            UserError: `mixes_powers` is false.
        """
        self.require_mixing("mixing")
        raise NotImplementedError(f"{type(self).__name__} lacks `mixed`")

    def mixed_clips(self, power, loudest):
        """The same of float32 clips `(clips, …)`, inside a graph.

        `loudest`, float32 `(clips,)`, is the highest power of each clip's song.
        """
        self.require_mixing("mixing")
        raise NotImplementedError(f"{type(self).__name__} lacks `mixed_clips`")

    # === Clips ===

    @property
    def main(self):
        """The first `Stream`."""
        return self.streams[0]

    @property
    def frame_rate(self):
        """Frames of the first stream a second."""
        return self.sample_rate / self.main.hop

    def stream(self, name):
        """The `Stream` of a name; stems are like the first one."""
        if name in STEMS:
            return dataclasses.replace(self.main, name=name, dtype="float16")
        return next(stream for stream in self.streams if stream.name == name)

    def clip_frames(self, seconds):
        """Frames of the first stream in a clip of so many seconds."""
        return self.main.frames(seconds * self.sample_rate)

    def clip_samples(self, clip_frames):
        """Samples that have so many frames, as few as there can be."""
        return (clip_frames - self.main.centred) * self.main.hop

    def frames_of(self, arrays):
        """Frames of the first stream in what `frames` gives."""
        return arrays[self.main.name].shape[self.main.axis]

    def frames_in(self, stream, clip_frames):
        """Frames of a `Stream` in a clip of so many of the first one's."""
        return stream.frames(self.clip_samples(clip_frames))

    def clip_shape(self, name, clip_frames):
        """Shape of a clip of a stream."""
        stream = self.stream(name)
        return stream.sized(self.frames_in(stream, clip_frames))

    def starts(self, frames, clip_frames, hop_frames=None):
        """Where full clips begin, float array `(clips,)`, seconds of sound.

        `hop_frames` are from one clip to the next; without it clips don't overlap.
        """
        last = frames - clip_frames + 1
        return np.arange(0, last, hop_frames or clip_frames) / self.frame_rate

    def cut(self, arrays, starts, clip_frames):
        """Clips that begin at `starts`, seconds of sound, of what `frames` gives.

        Dict from stream to float32 `(clips, …)`.
        """
        samples = np.round(np.asarray(starts) * self.sample_rate).astype(int)
        clips = {}
        for name, array in arrays.items():
            stream = self.stream(name)
            count = self.frames_in(stream, clip_frames)
            places = samples[:, None] // stream.hop + np.arange(count)
            found = np.take(array, places, axis=stream.axis)
            clips[name] = np.moveaxis(found, stream.axis, 0).astype("float32")
        return clips

    def clips(self, sound, starts, clip_frames):
        """The clips of a sound that begin at some seconds; see `frames` and `cut`."""
        return self.cut(self.frames(sound), starts, clip_frames)

    def require_frequencies(self, what):
        """Raises a `UserError` if there is no axis of frequency for `what`."""
        if self.frequencies is None:
            raise UserError(
                f"{what} needs a front end with an axis of frequency, and "
                f"{type(self).__name__} has none: take features of front_end mel"
            )

    def require_mixing(self, what):
        """Raises a `UserError` if stems cannot be mixed for `what`."""
        if not self.mixes_powers:
            raise UserError(
                f"{what} adds powers of voices and bands, and {type(self).__name__} "
                "keeps none: take features of front_end mel"
            )


@functools.lru_cache(maxsize=32)
def front_end_of(features):
    """The `FrontEnd` of a `lca_keras.base.config.FeatureConfig`."""
    return registry.load(registry.FRONT_ENDS[features.front_end])(features)


def network_input(streams, arrays):
    """What a network takes that hears these streams: an array, or a dict of several."""
    if len(streams) == 1:
        return arrays[streams[0]]
    return {name: arrays[name] for name in streams}
