"""What the tests of exports share: artists, songs, and clips by another path."""

import numpy as np

from lca_keras.audio.features import mel_spectrogram
from lca_keras.config import FeatureConfig
from tests.audio.signals import music

ARTISTS = ["Ada", "Björn", 'C\'est "moi" 🎤', "Дима"]


def song(seconds=14.0, seed=0):
    """Music dies away, a song does not."""
    samples = np.tile(music(16000, seconds=4.5, seed=seed), 20)
    return samples[: int(16000 * seconds)]


def clips_of(samples):
    """NumPy features, cut by slicing: float32 `(clips, 128, 94, 1)`."""
    mel = mel_spectrogram(samples, FeatureConfig())
    count = mel.shape[1] // 94
    return np.stack([mel[:, 94 * i : 94 * i + 94, None] for i in range(count)])
