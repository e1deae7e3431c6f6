import librosa
import numpy as np
import pytest

from lca_keras.base.sections import FeatureConfig
from lca_keras.features.spectrogram import mel_spectrogram
from lca_keras.features.spectrogram_layer import LogMelSpectrogram
from tests.audio.signals import music


@pytest.mark.parametrize("decibel", ["amplitude", "power"])
def test_equals_librosa(decibel):
    samples = music(16000, seconds=3.3)
    outputs = LogMelSpectrogram(FeatureConfig(level="none", decibel=decibel))(
        samples[None]
    )
    power = librosa.feature.melspectrogram(
        y=samples, sr=16000, n_fft=2048, hop_length=512, n_mels=128, fmax=8000
    )
    to_db = librosa.amplitude_to_db if decibel == "amplitude" else librosa.power_to_db
    expected = to_db(power, amin=1e-5)
    assert outputs.shape == (1, *expected.shape, 1)
    np.testing.assert_allclose(outputs[0, ..., 0], expected, atol=1e-3)


def test_a_song_does_not_depend_on_its_batch():
    loud, soft = music(16000), 0.01 * music(16000, seed=1)
    alone = LogMelSpectrogram()(soft[None])[0]
    together = LogMelSpectrogram()(np.stack([loud, soft]))[1]
    np.testing.assert_allclose(together, alone, atol=1e-4)


def test_long_songs_are_not_cut_where_they_come_in_pieces():
    songs = np.stack([music(16000, seconds=150, seed=seed) for seed in (0, 1)])
    expected = [mel_spectrogram(samples, FeatureConfig()) for samples in songs]
    assert expected[0].shape[1] > 2 * 1024
    np.testing.assert_allclose(LogMelSpectrogram()(songs)[..., 0], expected, atol=1e-3)


@pytest.mark.parametrize("level", ["song", "none"])
def test_what_follows_a_song_is_no_matter(level):
    config, rng = FeatureConfig(level=level), np.random.default_rng(0)
    songs = [music(16000, seconds=s, seed=i) + 0.1 for i, s in enumerate((3, 1.7, 2.2))]
    lengths = [samples.size for samples in songs]
    padded = 9 * rng.normal(size=(3, max(lengths) + 999)).astype("float32")
    padded[0, -5] = np.nan
    for row, samples in zip(padded, songs, strict=True):
        row[: samples.size] = samples
    outputs = LogMelSpectrogram(config)(padded, np.array(lengths))[..., 0]
    for row, samples in zip(outputs, songs, strict=True):
        mel = mel_spectrogram(samples, config)
        np.testing.assert_allclose(row[:, : mel.shape[1]], mel, atol=1e-3)
        rest = np.array(row[:, mel.shape[1] :])
        assert (rest <= mel.min() + 1e-3).all()


def test_config_round_trip():
    layer = LogMelSpectrogram(FeatureConfig(mel_bins=64, top_db=60.0))
    revived = LogMelSpectrogram.from_config(layer.get_config())
    assert revived.feature_config == layer.feature_config
    samples = music(16000, seconds=1)
    expected = mel_spectrogram(samples, layer.feature_config)
    np.testing.assert_allclose(revived(samples[None])[0, ..., 0], expected, atol=1e-3)
