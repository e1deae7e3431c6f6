"""A song as a network hears it."""

import dataclasses

import numpy as np

from lca_keras.audio.decode import AudioError
from lca_keras.features import silence
from lca_keras.features.front_end import FrontEnd

# Seconds of silence that are told; songs fade in and out.
_WORTH_A_WORD = 3.0


@dataclasses.dataclass(frozen=True)
class HeardSong:
    """A song as a network hears it, without its silence.

    Attributes:
        front_end: `lca_keras.features.front_end.FrontEnd` that it was heard with.
        arrays: Dict from stream to what the front end makes of the song's sound.
        passages: Tuple of floats, what `lca_keras.features.silence.passages` gives.
        starts: Float array, seconds of sound at which clips begin.
        clip_frames: Int, frames of a clip.
        seconds: Float, length of the whole song.
        notes: Sentences about sound that is missing, and silence.
    """

    front_end: FrontEnd
    arrays: dict[str, np.ndarray]
    passages: tuple[float, ...]
    starts: np.ndarray
    clip_frames: int
    seconds: float
    notes: list[str]

    @property
    def times(self):
        """Float array, seconds of the song at which clips begin."""
        return silence.song_seconds(self.passages, self.starts)

    def clips(self, chosen=slice(None)):
        """Dict from stream to float32 `(clips, …)`, of all clips or some."""
        return self.front_end.cut(self.arrays, self.starts[chosen], self.clip_frames)

    def in_song(self, array, stream=None):
        """Frames of a stream at their places in the song, NaN where silence is.

        Args:
            array: Array of the stream's shape.
            stream: Optional `lca_keras.features.front_end.Stream`; default is the first
                one.
        """
        stream = stream or self.front_end.main
        rate = self.front_end.sample_rate / stream.hop
        frames = np.arange(array.shape[stream.axis])
        places = silence.song_seconds(self.passages, frames / rate)
        places = np.round(places * rate).astype(int)
        whole = max(1 + round(self.seconds * rate), places[-1] + 1)
        placed = np.full(stream.sized(whole), np.nan, "float32")
        np.moveaxis(placed, stream.axis, 0)[places] = np.moveaxis(array, stream.axis, 0)
        return placed


def hear(extractor, config, song, overlap=0.0):
    """Decodes a song and cuts it into clips, as a network takes them.

    Args:
        extractor: `lca_keras.data.extraction.Extractor` of what the network is served.
        config: `lca_keras.base.config.Config` of its training.
        song: `lca_keras.data.catalogue.Song`; its names are not read.
        overlap: Share of a clip that the next one has too, below 1.

    Returns:
        `HeardSong`.

    Raises:
        AudioError: It cannot be decoded, is silent or too short.
    """
    front_end, clip_frames = extractor.front_end, config.clip_frames
    sounds = extractor.sounds(song)
    whole = extractor.heard(sounds).seconds
    if whole < config.least_seconds:  # Then nothing need be computed.
        raise AudioError(too_short(whole, whole, config.least_seconds))
    arrays, passages = extractor.frames(sounds)
    left, frames = silence.seconds(passages), front_end.frames_of(arrays)
    hop = max(1, round(clip_frames * (1 - overlap)))
    starts = front_end.starts(frames, clip_frames, hop)
    if not starts.size:
        raise AudioError(too_short(whole, left, config.least_seconds))
    notes = list(sounds["mixture"].notes)
    if whole - left >= _WORTH_A_WORD:
        notes.append(f"{whole - left:.1f} s of it are silent and left out")
    return HeardSong(front_end, arrays, passages, starts, clip_frames, whole, notes)


def too_short(whole, left, least):
    """Why a song has no clip: its seconds, those without silence, those of a clip."""
    said = f"{whole:.3f} s" if whole < least else f"{left:.3f} s"
    without = "" if whole < least else " without its silence"
    return f"too short{without}: {said}, a clip needs {least:.3f} s"
