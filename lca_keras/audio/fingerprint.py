"""Fingerprints that tell whether two files hold the same recording.

Pairs of spectral peaks, as in Shazam: a peak survives lossy coding, a change of level
and a shift in time, and two recordings share many pairs at one time offset only if
they are the same. Another performance of the same song is another recording.

References:
    - Wang, 2003, An industrial-strength audio search algorithm (ISMIR)
"""

import numpy as np

SAMPLE_RATE = 8000
_N_FFT, _HOP = 1024, 64  # 7.8 Hz and 8 ms a step
# A peak is the largest value within this many bins and frames to each side.
_REACH_BINS, _REACH_FRAMES = 12, 24
# Each peak is combined with two of the next few, at most so far away. Three peaks make
# a landmark that is rare even among a hundred thousand songs.
_PARTNERS = ((1, 2), (1, 3), (2, 3), (1, 4), (2, 4), (3, 4))
_MAX_FRAMES, _MAX_BINS = 192, 96
_FRAMES_AT_ONCE = 8192
# Neighbours in the sorted table that are compared. A landmark that more songs share
# says nothing of any two of them.
_NEIGHBOURS = 16
# Frames by which offsets of the same recording may differ after rounding.
_OFFSET_SLACK = 2
_MIN_SHARED = 6
MIN_SIMILARITY = 0.08


def fingerprint(samples, keep_every=1):
    """Landmarks of a recording.

    Args:
        samples: Float array `(samples,)` at `SAMPLE_RATE`.
        keep_every: Int, keeps one of so many hashes, the same ones in all recordings;
            bounds the memory that a large corpus takes.

    Returns:
        Tuple of arrays `(landmarks,)`: uint64 hashes, and int32 times in frames.
    """
    times, bins = _peaks(np.asarray(samples, "float32"))
    hashes, starts = [], []
    for near, far in _PARTNERS:
        count = max(0, len(times) - far)
        packed, valid = bins[:count].astype("uint64"), np.ones(count, bool)
        for step in (near, far):
            apart = times[step : step + count] - times[:count]
            rise = bins[step : step + count] - bins[:count]
            valid &= (apart > 0) & (apart <= _MAX_FRAMES) & (np.abs(rise) <= _MAX_BINS)
            # Times are rounded: framing moves peaks by a step or two.
            for value, bits in ((rise + _MAX_BINS, 8), (apart >> 2, 6)):
                packed = (packed << np.uint64(bits)) | np.clip(
                    value, 0, (1 << bits) - 1
                ).astype("uint64")
        hashes.append(packed[valid])
        starts.append(times[:count][valid])
    hashes = np.concatenate(hashes)
    starts = np.concatenate(starts).astype("int32")
    # Multiplying scrambles the bits: neighbouring hashes are kept or not at random.
    scrambled = (hashes * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(32)
    kept = scrambled % np.uint64(keep_every) == 0
    return hashes[kept], starts[kept]


def _peaks(samples):
    """Times and bins of the spectral peaks, in order of time."""
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
        times, bins = times[inside], bins[inside]
        found.append((times + begin, bins, magnitude[times, bins]))
        loudest = max(loudest, magnitude.max())
    times, bins, heights = (np.concatenate(part) for part in zip(*found, strict=True))
    # Peaks 60 dB below the loudest are noise of the coding.
    high = heights > 1e-3 * loudest
    return times[high], bins[high]


def find_same(fingerprints):
    """Finds recordings that occur more than once.

    Args:
        fingerprints: List of what `fingerprint` gave.

    Returns:
        List of tuples (i, j, similarity), i < j: indices of two fingerprints, and the
        share of landmarks, of the shorter one, that agree at one time offset.
    """
    if not fingerprints:
        return []
    sizes = np.array([len(hashes) for hashes, _ in fingerprints])
    hashes = np.concatenate([hashes for hashes, _ in fingerprints])
    times = np.concatenate([times for _, times in fingerprints])
    songs = np.repeat(np.arange(len(fingerprints), dtype="int32"), sizes)
    order = np.lexsort((songs, hashes))
    hashes, times, songs = hashes[order], times[order], songs[order]
    pairs = []
    for lag in range(1, _NEIGHBOURS + 1):
        same = (hashes[lag:] == hashes[:-lag]) & (songs[lag:] != songs[:-lag])
        index = np.flatnonzero(same)
        offsets = times[index + lag] - times[index]
        pairs.append(np.stack([songs[index], songs[index + lag], offsets], axis=1))
    pairs = np.concatenate(pairs)
    pairs = pairs[np.lexsort((pairs[:, 2], pairs[:, 1], pairs[:, 0]))]
    found = []
    edges = np.flatnonzero(np.any(np.diff(pairs[:, :2], axis=0) != 0, axis=1)) + 1
    for group in np.split(pairs, edges):
        if len(group) < _MIN_SHARED:
            continue
        first, second = int(group[0, 0]), int(group[0, 1])
        offsets = group[:, 2]
        window = offsets + 2 * _OFFSET_SLACK
        shared = np.searchsorted(offsets, window, side="right") - np.arange(
            len(offsets)
        )
        similarity = shared.max() / min(sizes[first], sizes[second])
        if shared.max() >= _MIN_SHARED and similarity >= MIN_SIMILARITY:
            found.append((first, second, float(similarity)))
    return found
