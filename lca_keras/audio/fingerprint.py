"""Fingerprints that tell whether two files hold the same recording.

Triples of spectral peaks: peaks survive lossy coding, a change of level and a shift in
time, and the ratios of their frequencies and of the times between them survive a change
of speed too. Two recordings share many triples at one speed and one time offset only
if they are the same. Another performance of the same song is another recording.

References:
    - Wang, 2003, An industrial-strength audio search algorithm (ISMIR)
    - Six and Leman, 2014, Panako: a scalable acoustic fingerprinting system handling
      time-scale and pitch modification (ISMIR)
"""

import dataclasses

import numpy as np

SAMPLE_RATE = 8000
_N_FFT, _HOP = 1024, 64  # 7.8 Hz and 8 ms a step
# A peak is the largest value within this many bins and frames to each side.
_REACH_BINS, _REACH_FRAMES = 12, 24
# Each peak is combined with two of the next few, at most so many frames away. Three
# peaks make a landmark that is rare even among a hundred thousand songs.
_PARTNERS = ((1, 2), (1, 3), (2, 3), (1, 4), (2, 4), (3, 4))
_MAX_FRAMES = 192
# Steps of a landmark: of the ratios of frequencies, an octave, up to two octaves each
# way; of the ratio of times. Pitch and length, an octave, are there to set landmarks
# apart, and so coarse that a change of speed hardly changes them.
_RATIO_STEPS, _TIME_STEPS, _COARSE_STEPS = 64, 16, 2
_LOWEST_BIN = 8  # Frequencies below are not known well enough for a ratio.
_FRAMES_AT_ONCE = 8192
# Neighbours in the sorted table that are compared. A landmark that more songs share
# says nothing of any two of them.
_NEIGHBOURS = 16
# Copies are at most so much faster or slower, a logarithm: records at the wrong speed,
# 24 pictures a second shown as 25. Within a copy the speed is one, to so much.
_MOST_CHANGE, _SPEED_SLACK = 0.086, 0.006
# Frames by which offsets of the same recording may differ: times are rounded, and the
# speed is not known exactly.
_OFFSET_SLACK = 30
_MIN_SHARED = 6
MIN_SIMILARITY = 0.05


@dataclasses.dataclass(frozen=True)
class Match:
    """Two recordings, by their indices, that have sound in common."""

    first: int
    second: int
    similarity: float  # Share of landmarks, of the one that has fewer, that agree.
    speed: float  # How much faster the second one runs.
    seconds: float  # Length of what they share.
    share: float  # Of the shorter one.


def fingerprint(samples, keep_every=1):
    """Landmarks of a recording, float samples `(samples,)` at `SAMPLE_RATE`.

    `keep_every` keeps one of so many hashes, the same ones in all recordings; it bounds
    the memory that a large corpus takes. Returns arrays `(landmarks,)`: uint32 hashes,
    float32 times in frames, and float32 frequencies in bins.
    """
    times, bins = _peaks(np.asarray(samples, "float32"))
    high = bins >= _LOWEST_BIN
    times, pitches = times[high], np.log2(bins[high])
    hashes, kept = [], []
    for near, far in _PARTNERS:
        count = max(0, len(times) - far)
        first, second, third = (slice(n, n + count) for n in (0, near, far))
        length, part = times[third] - times[first], times[second] - times[first]
        valid = (part > 0) & (part < length) & (length <= _MAX_FRAMES)
        fields = []
        for other in (second, third):
            steps = np.round(_RATIO_STEPS * (pitches[other] - pitches[first]))
            valid &= np.abs(steps) < 2 * _RATIO_STEPS
            fields.append((steps + 2 * _RATIO_STEPS, 4 * _RATIO_STEPS))
        lengths = np.maximum(length, 1)
        fields.append((_TIME_STEPS * part // lengths, _TIME_STEPS))
        fields.append((_COARSE_STEPS * pitches[first], 32))
        fields.append((_COARSE_STEPS * np.log2(lengths), 32))
        packed = np.zeros(count, "uint32")
        for values, size in fields:
            digits = np.clip(np.floor(values), 0, size - 1).astype("uint32")
            packed = packed * np.uint32(size) + digits
        hashes.append(packed[valid])
        kept.append(np.flatnonzero(valid))
    hashes, kept = np.concatenate(hashes), np.concatenate(kept)
    # Multiplying scrambles the bits: neighbouring hashes are kept or not at random.
    scrambled = (hashes * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(32)
    few = scrambled % np.uint64(keep_every) == 0
    hashes, kept = hashes[few], kept[few]
    return hashes, times[kept].astype("float32"), bins[high][kept].astype("float32")


def _peaks(samples):
    """Times and bins, the latter with fractions, of the spectral peaks, by time."""
    import scipy.fft
    from scipy import ndimage

    padded = np.pad(samples, _N_FFT // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, _N_FFT)[::_HOP]
    loudest = 1e-9
    found = []
    # Piece by piece, with enough around each to know its peaks.
    for first in range(0, len(frames), _FRAMES_AT_ONCE):
        begin = max(0, first - _REACH_FRAMES)
        last = min(len(frames), first + _FRAMES_AT_ONCE)
        piece = frames[begin : last + _REACH_FRAMES] * np.hanning(_N_FFT)
        magnitude = np.abs(scipy.fft.rfft(piece, axis=1)).astype("float32")
        size = (2 * _REACH_FRAMES + 1, 2 * _REACH_BINS + 1)
        largest = ndimage.maximum_filter(magnitude, size, mode="nearest")
        # Plateaus, such as silence, are no peaks.
        times, bins = np.nonzero(
            (magnitude == largest) & (magnitude > magnitude.mean())
        )
        inside = (times >= first - begin) & (times < last - begin)
        inside &= (bins > 0) & (bins < magnitude.shape[1] - 1)
        times, bins = times[inside], bins[inside]
        heights = magnitude[times, bins]
        # The summit of the parabola through a peak and its neighbours, in logarithms.
        sides = [np.log(magnitude[times, bins + step] + 1e-9) for step in (-1, 1)]
        bend = sides[0] + sides[1] - 2 * np.log(heights)
        shift = (sides[0] - sides[1]) / (2 * np.minimum(bend, -1e-6))
        found.append((times + begin, bins + np.clip(shift, -0.5, 0.5), heights))
        loudest = max(loudest, magnitude.max())
    times, bins, heights = (np.concatenate(part) for part in zip(*found, strict=True))
    # Peaks 60 dB below the loudest are noise of the coding.
    high = heights > 1e-3 * loudest
    return times[high], bins[high]


def find_same(fingerprints):
    """Recordings, and parts of them, that occur more than once: a list of `Match`."""
    if not fingerprints:
        return []
    sizes = np.array([len(hashes) for hashes, _, _ in fingerprints])
    hashes, times, bins = (
        np.concatenate(arrays) for arrays in zip(*fingerprints, strict=True)
    )
    songs = np.repeat(np.arange(len(fingerprints), dtype="int32"), sizes)
    order = np.lexsort((songs, hashes))
    hashes, songs = hashes[order], songs[order]
    lefts, rights = [], []
    for lag in range(1, _NEIGHBOURS + 1):
        same = (hashes[lag:] == hashes[:-lag]) & (songs[lag:] != songs[:-lag])
        index = np.flatnonzero(same)
        rises = np.log(bins[order[index + lag]] / bins[order[index]])
        index = index[np.abs(rises) <= _MOST_CHANGE]
        lefts.append(index)
        rights.append(index + lag)
    left, right = np.concatenate(lefts), np.concatenate(rights)
    pair = songs[left].astype("int64") * len(sizes) + songs[right]
    by_pair = np.argsort(pair, kind="stable")
    pairs, starts, counts = np.unique(
        pair[by_pair], return_index=True, return_counts=True
    )
    left, right = order[left[by_pair]], order[right[by_pair]]
    firsts, seconds = np.divmod(pairs, len(sizes))
    needed = MIN_SIMILARITY * np.minimum(sizes[firsts], sizes[seconds])
    found = []
    for number in np.flatnonzero(counts >= np.maximum(_MIN_SHARED, needed)):
        group = slice(starts[number], starts[number] + counts[number])
        one, other = left[group], right[group]
        agreed, speed = _agreeing(
            times[one], times[other], np.log(bins[other] / bins[one])
        )
        if len(agreed) < max(_MIN_SHARED, needed[number]):
            continue
        first, second = int(firsts[number]), int(seconds[number])
        similarity = len(agreed) / int(min(sizes[first], sizes[second]))
        shared = min(_seconds(times[each[agreed]]) for each in (one, other))
        share = shared / min(_seconds(fingerprints[n][1]) for n in (first, second))
        found.append(Match(first, second, similarity, speed, float(shared), share))
    return found


def _agreeing(times, other_times, rises):
    """Indices of landmarks that agree in speed and offset; and that speed."""
    near = _densest(rises, _SPEED_SLACK)
    speed = np.exp(np.median(rises[near]))
    offsets = other_times[near] - times[near] / speed
    return near[_densest(offsets, _OFFSET_SLACK)], float(speed)


def _densest(values, width):
    """Indices of the values in the window of some width that holds the most."""
    order = np.argsort(values)
    ends = np.searchsorted(values[order], values[order] + width, side="right")
    counts = ends - np.arange(len(values))
    begin = counts.argmax()
    return order[begin : ends[begin]]


def _seconds(times):
    """Number of seconds that have one of the times, in frames."""
    return len(np.unique(times.astype("int64") * _HOP // SAMPLE_RATE))
