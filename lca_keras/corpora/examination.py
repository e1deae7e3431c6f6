"""What is read of one song of a corpus before anybody trains on it."""

import dataclasses
import hashlib

import numpy as np

from lca_keras.audio import fingerprint
from lca_keras.audio.decode import AudioError, Sound, decode
from lca_keras.base.config import Config
from lca_keras.features import silence

# Samples at full scale, so many in a row, are clipped.
_FULL_SCALE, _RUN = 0.999, 3


@dataclasses.dataclass(frozen=True)
class Examination:
    """What was measured of one song.

    Attributes:
        problem: Why it cannot be decoded, or empty.
        notes: Sentences about sound that may be missing.
        seconds: Length.
        sound: Seconds that are left of it without its silence, as for clips.
        rate: Samples per second in the file.
        channels: Channels in the file.
        clipped: Share of samples that are clipped.
        level: Root mean square of all channels, decibels of full scale.
        same_channels: Whether it is mono, stored as two or more equal channels.
        silent_channels: Whether some but not all channels are silent.
        content_hash: Hash of the decoded samples.
        landmarks: What `lca_keras.audio.fingerprint.fingerprint` gave.
    """

    problem: str = ""
    notes: tuple[str, ...] = ()
    seconds: float = 0.0
    sound: float = 0.0
    rate: int = 0
    channels: int = 0
    clipped: float = 0.0
    level: float = 0.0
    same_channels: bool = False
    silent_channels: bool = False
    content_hash: str = ""
    landmarks: tuple | None = None


def examine(path, keep_every=1):
    """Decodes a song and measures what can be told from it alone; an `Examination`.

    `keep_every` is that of `lca_keras.audio.fingerprint.fingerprint`.
    """
    gauge = _Gauge()
    try:
        sound = decode(path, fingerprint.SAMPLE_RATE, gauge.add)
    except AudioError as error:
        return Examination(problem=str(error))
    samples, energy = sound.samples, gauge.energy
    channels, total = len(energy), energy.sum()
    return Examination(
        notes=tuple(sound.notes),
        seconds=gauge.seconds,
        sound=_sound(samples, gauge.seconds),
        rate=gauge.rate,
        channels=channels,
        clipped=gauge.clipped / gauge.size,
        level=float(10 * np.log10(total / gauge.size + 1e-12)),
        same_channels=channels > 1 and gauge.difference < 1e-6 * total,
        silent_channels=bool((energy < 1e-6 * energy.max()).any()),
        content_hash=gauge.digest.hexdigest()[:32],
        landmarks=fingerprint.fingerprint(samples, keep_every),
    )


def _sound(samples, seconds):
    """Seconds of a recording without its silence; found at the fingerprint's rate."""
    sound = Sound.of(samples, fingerprint.SAMPLE_RATE)
    passages = silence.passages(sound, Config().front_end.range_db)
    return min(seconds, seconds - sound.seconds + silence.seconds(passages))


class _Gauge:
    """Measures a recording while it is decoded, piece by piece."""

    def __init__(self):
        self.digest = hashlib.sha256()
        self.rate, self.seconds = 0, 0.0
        self.size, self.clipped = 0, 0
        self.energy, self.difference = None, 0.0

    def add(self, rate, block):
        """Takes what `lca_keras.audio.decode.read_blocks` yields."""
        self.digest.update(block.tobytes())
        self.rate = self.rate or rate
        self.seconds += len(block) / rate
        self.size += block.size
        self.clipped += _count_clipped(block)
        energy = np.sum(np.square(block, dtype="float64"), axis=0)
        if self.energy is not None:
            # Of files that were joined, the channels that all of them have.
            count = min(len(energy), len(self.energy))
            energy = self.energy[:count] + energy[:count]
        self.energy = energy
        self.difference += np.sum(np.square(block - block[:, :1], dtype="float64"))


def _count_clipped(block):
    """Samples at full scale that are part of a run."""
    high = np.abs(block) >= _FULL_SCALE
    run = high.copy()
    for step in range(1, _RUN):
        run[step:] &= high[:-step]
    return int(run[_RUN - 1 :].sum())
