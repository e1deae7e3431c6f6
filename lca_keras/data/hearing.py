"""A song as a network hears it."""

import dataclasses

import numpy as np

from lca_keras.audio.decode import AudioError
from lca_keras.features import spectrogram
from lca_keras.features.melody import contour

# Seconds of silence that are told; songs fade in and out.
_WORTH_A_WORD = 3.0


@dataclasses.dataclass(frozen=True)
class HeardSong:
    """A song as a network hears it.

    Attributes:
        mel: Float32 array `(mel_bins, kept frames)`, decibels, without silence.
        melody: `lca_keras.features.melody.contour` of the same frames, or `None`.
        kept: Int array, the song's frames that are kept.
        starts: Int array, kept frames at which clips begin.
        second: Float, frames a second.
        frames: Int, frames of the whole song.
        notes: Sentences about sound that is missing, and silence.
    """

    mel: np.ndarray
    melody: np.ndarray | None
    kept: np.ndarray
    starts: np.ndarray
    second: float
    frames: int
    notes: list[str]

    def clips(self, clip_frames, starts):
        """What the network takes of the clips from some kept frames.

        Returns:
            Float32 array `(clips, mel_bins, clip_frames, 1)`, or a dict of two with the
            melody.
        """
        frames = [start + np.arange(clip_frames) for start in starts]
        mel = np.stack([self.mel[:, few] for few in frames])[..., None]
        if self.melody is None:
            return mel
        melody = np.stack([self.melody[:, few] for few in frames])[..., None]
        return {"mel_spectrogram": mel, "melody": melody}


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
    served, clip_frames = extractor.config, config.clip_frames
    sounds = extractor.sounds(song)
    heard = extractor.heard(sounds)
    if 1 + heard.size // served.hop_length < clip_frames:
        raise AudioError(
            f"too short: {heard.seconds:.3f} s, a clip needs "
            f"{config.least_seconds:.3f} s"
        )
    mel = spectrogram.mel_spectrogram(heard, served)
    silence = spectrogram.silent_passages(spectrogram.sounding_frames(mel, served))
    kept = spectrogram.kept_frames(mel.shape[1], silence, served)
    hop = max(1, round(clip_frames * (1 - overlap)))
    starts = spectrogram.clip_starts(len(kept), clip_frames, hop)
    second = served.sample_rate / served.hop_length
    if not starts.size:
        raise AudioError(
            f"too short without its silence: {len(kept) / second:.3f} s, a clip needs "
            f"{config.least_seconds:.3f} s"
        )
    notes = list(sounds["mixture"].notes)
    left_out = (mel.shape[1] - len(kept)) / second
    if left_out >= _WORTH_A_WORD:
        notes.append(f"{left_out:.1f} s of it are silent and left out")
    bands = extractor.melody(sounds)
    melody = None if bands is None else contour(bands[kept], served.mel_bins)
    frames = mel.shape[1]
    return HeardSong(mel[:, kept], melody, kept, starts, second, frames, notes)
