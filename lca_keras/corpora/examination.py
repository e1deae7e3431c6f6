"""What is read of each song of a corpus before anybody trains on it, and copies."""

import collections
import dataclasses
import hashlib

import numpy as np

from lca_keras.audio import fingerprint
from lca_keras.audio.decode import AudioError, decode
from lca_keras.base.config import Config
from lca_keras.features import silence

# Samples at full scale, so many in a row, are clipped.
_FULL_SCALE, _RUN = 0.999, 3
# What two recordings share of the shorter one, to be the same and not to share a
# passage, a jingle say.
_SAME_SHARE = 0.5
# Copies that differ less in speed are of one speed.
_ONE_SPEED = 0.003


@dataclasses.dataclass(frozen=True)
class Examination:
    """What was measured of one song."""

    problem: str = ""  # Why it cannot be decoded.
    notes: tuple[str, ...] = ()  # Sentences about sound that may be missing.
    seconds: float = 0.0
    sound: float = 0.0  # Seconds without its silence, as for clips.
    rate: int = 0  # Samples per second in the file.
    channels: int = 0  # In the file.
    clipped: float = 0.0  # Share of samples that are.
    level: float = 0.0  # Root mean square of all channels, decibels of full scale.
    same_channels: bool = False  # Mono, stored as two or more equal channels.
    silent_channels: bool = False  # Some, but not all.
    content_hash: str = ""  # Of the decoded samples.
    landmarks: tuple | None = None


def examine(path, keep_every=1):
    """Decodes a song and measures what can be told from it alone; an `Examination`."""
    gauge = _Gauge()
    try:
        sound = decode(path, fingerprint.SAMPLE_RATE, gauge.add)
    except AudioError as error:
        return Examination(problem=str(error))
    samples, energy = sound.samples, gauge.energy
    channels, total = len(energy), energy.sum()
    # Silence is found at the fingerprint's rate.
    heard = silence.seconds(silence.passages(sound, Config().front_end.range_db))
    return Examination(
        notes=tuple(sound.notes),
        seconds=gauge.seconds,
        sound=min(gauge.seconds, gauge.seconds - sound.seconds + heard),
        rate=gauge.rate,
        channels=channels,
        clipped=gauge.clipped / gauge.size,
        level=float(10 * np.log10(total / gauge.size + 1e-12)),
        same_channels=channels > 1 and gauge.difference < 1e-6 * total,
        silent_channels=bool((energy < 1e-6 * energy.max()).any()),
        content_hash=gauge.digest.hexdigest()[:32],
        landmarks=fingerprint.fingerprint(samples, keep_every),
    )


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
        high = np.abs(block) >= _FULL_SCALE
        run = high.copy()
        for step in range(1, _RUN):
            run[step:] &= high[:-step]
        self.clipped += int(run[_RUN - 1 :].sum())
        energy = np.sum(np.square(block, dtype="float64"), axis=0)
        if self.energy is not None:
            # Of files that were joined, the channels that all of them have.
            count = min(len(energy), len(self.energy))
            energy = self.energy[:count] + energy[:count]
        self.energy = energy
        self.difference += np.sum(np.square(block - block[:, :1], dtype="float64"))


# === The same recording, or a passage of it, more than once ===


def copies(examinations):
    """What pairs of equal songs are, in words, and the `Match`es of shared passages."""
    pairs, passages = {}, []
    same = collections.defaultdict(list)
    for index, examined in enumerate(examinations):
        same[examined.content_hash].append(index)
    for first, *others in same.values():
        pairs |= {(first, other): "the same samples" for other in others}
    for match in fingerprint.find_same([each.landmarks for each in examinations]):
        first, second = (examinations[n] for n in (match.first, match.second))
        if match.share < _SAME_SHARE:
            passages.append(match)
        elif first.content_hash != second.content_hash:
            what = f"the same recording (similarity {match.similarity:.2f})"
            if abs(change := match.speed - 1) > _ONE_SPEED:
                faster = "slower" if change > 0 else "faster"
                what += f", {abs(change):.1%} {faster},"
            pairs[match.first, match.second] = what
    return pairs, passages


def groups(passages):
    """Yields indices of songs that share passages, and the median seconds of these."""
    from scipy.sparse import coo_array, csgraph

    if not passages:
        return
    ends = np.array([(match.first, match.second) for match in passages])
    ones, size = np.ones(len(ends)), ends.max() + 1
    graph = coo_array((ones, tuple(ends.T)), (size, size))
    _, group_of = csgraph.connected_components(graph, directed=False)
    for group in np.unique(group_of[ends[:, 0]]):
        seconds = [m.seconds for m in passages if group_of[m.first] == group]
        yield np.flatnonzero(group_of == group), np.median(seconds)
