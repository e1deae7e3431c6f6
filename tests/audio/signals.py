"""Sounds for tests."""

import numpy as np


def music(rate, seconds=4.0, channels=1, seed=0):
    """Decaying tones and noise over a wide range of levels.

    Returns:
        Float32 array `(samples,)`, or `(samples, channels)` for several channels.
    """
    rng = np.random.default_rng(seed)
    times = np.arange(int(rate * seconds)) / rate
    tracks = []
    for _ in range(channels):
        track = 0.02 * rng.standard_normal(times.size) * np.exp(-times)
        for hertz in rng.uniform(100, 5000, 5):
            track += 0.1 * np.sin(2 * np.pi * hertz * times) * np.exp(-times / 2)
        tracks.append(track.astype("float32"))
    return tracks[0] if channels == 1 else np.stack(tracks, axis=1)
