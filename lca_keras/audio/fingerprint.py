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
# Each peak is paired with the next few, at most so many frames and bins away.
_FAN_OUT, _MAX_FRAMES, _MAX_BINS = 5, 192, 96
# Neighbours in the sorted table that are compared. A pair of peaks that more songs
# share says nothing of any two of them.
_NEIGHBOURS = 16
# Frames by which offsets of the same recording may differ after rounding.
_OFFSET_SLACK = 2
_MIN_SHARED = 6
# On the built-in corpus, an MP3 of 56 kb/s, 3 dB softer and 20 ms later, shares 0.39 of
# its landmarks with the original or more; two songs share at most 0.05.
MIN_SIMILARITY = 0.15


def fingerprint(samples, keep_every=1):
    """Landmarks of a recording.

    Args:
        samples: Float array `(samples,)` at `SAMPLE_RATE`.
        keep_every: Int, keeps one of so many hashes, the same ones in all recordings;
            bounds the memory that a large corpus takes.

    Returns:
        Tuple of arrays `(landmarks,)`: uint32 hashes, and int32 times in frames.
    """
    import scipy.fft
    from scipy import ndimage

    padded = np.pad(np.asarray(samples, "float32"), _N_FFT // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, _N_FFT)[::_HOP]
    magnitude = np.abs(scipy.fft.rfft(frames * np.hanning(_N_FFT), axis=1))
    level = np.log(np.maximum(magnitude, 1e-6 * magnitude.max() + 1e-12))
    size = (2 * _REACH_FRAMES + 1, 2 * _REACH_BINS + 1)
    largest = ndimage.maximum_filter(level, size, mode="nearest")
    # Peaks far below the loudest are noise of the coding; plateaus are no peaks.
    heights = np.maximum(level.max() - 7.0, level.mean())
    times, bins = np.nonzero((level == largest) & (level > heights))
    hashes, starts = [], []
    for step in range(1, _FAN_OUT + 1):
        apart = times[step:] - times[:-step]
        rise = bins[step:] - bins[:-step]
        near = (apart > 0) & (apart <= _MAX_FRAMES) & (np.abs(rise) <= _MAX_BINS)
        packed = (bins[:-step] << 14) | ((rise + _MAX_BINS) << 6) | (apart >> 2)
        hashes.append(packed[near])
        starts.append(times[:-step][near])
    hashes = np.concatenate(hashes).astype("uint32")
    starts = np.concatenate(starts).astype("int32")
    # Multiplying scrambles the bits: neighbouring hashes are kept or not at random.
    kept = ((hashes * np.uint32(2654435761)) >> np.uint32(16)) % keep_every == 0
    return hashes[kept], starts[kept]


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
