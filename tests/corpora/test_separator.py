import numpy as np
import pytest

from lca_keras.corpora import separator


def test_drawn_batches_mix_songs_at_random():
    stems = [np.full((2, 3000), level, "float32") for level in (1.0, 2.0)]
    stems[1][1] = 10.0
    vocals, rest = separator.draw_batch(stems, 100, np.random.default_rng(0))
    assert vocals.shape == rest.shape == (16, 100)
    levels = {round(float(row.max()), 3) for row in vocals}
    assert len(levels) > 8  # Gains differ.
    assert rest.max() > 2.5  # The other song's backing occurs.


def test_sdr_of_known_noise():
    rng = np.random.default_rng(0)
    voice = rng.normal(size=100_000)
    noisy = voice + 0.1 * rng.normal(size=100_000)
    assert separator.signal_to_distortion(voice, noisy) == pytest.approx(20, abs=0.1)
