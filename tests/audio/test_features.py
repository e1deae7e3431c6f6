import librosa
import numpy as np
import pytest
import soundfile

from lca_keras.audio.decode import decode
from lca_keras.audio.features import hann_window, mel_spectrogram
from lca_keras.config import FeatureConfig
from tests.audio.signals import music


@pytest.mark.parametrize("rate", [16000, 22050, 44100, 48000])
@pytest.mark.parametrize("channels", [1, 2])
def test_equals_librosa_from_the_file_on(rate, channels, tmp_path):
    path = tmp_path / "song.wav"
    soundfile.write(path, music(rate, channels=channels), rate)
    samples, _ = librosa.load(path, sr=16000)
    power = librosa.feature.melspectrogram(
        y=samples, sr=16000, n_fft=2048, hop_length=512, n_mels=128
    )
    ours = decode(path).samples
    np.testing.assert_allclose(ours, samples, atol=1e-6)
    mel = mel_spectrogram(ours, FeatureConfig())
    assert mel.dtype == np.float32
    assert mel.shape == (128, 1 + len(samples) // 512)
    np.testing.assert_allclose(mel, librosa.amplitude_to_db(power), atol=1e-3)
    mel = mel_spectrogram(ours, FeatureConfig(decibel="power"))
    expected = librosa.power_to_db(power, amin=1e-5)
    np.testing.assert_allclose(mel, expected, atol=1e-3)


def test_long_songs_are_not_cut_at_chunk_borders():
    samples = music(16000, seconds=70)
    power = librosa.feature.melspectrogram(
        y=samples, sr=16000, n_fft=2048, hop_length=512, n_mels=128
    )
    mel = mel_spectrogram(samples, FeatureConfig())
    np.testing.assert_allclose(mel, librosa.amplitude_to_db(power), atol=1e-3)


def test_songs_in_pieces_give_the_same_bits():
    samples = music(16000, seconds=70)
    whole = mel_spectrogram(samples, FeatureConfig())
    for pieces in (np.split(samples, [7, 1000, 1000, 600_000]), [samples, samples[:0]]):
        np.testing.assert_array_equal(mel_spectrogram(pieces, FeatureConfig()), whole)


def test_window_is_periodic():
    np.testing.assert_allclose(
        hann_window(2048), librosa.filters.get_window("hann", 2048), atol=1e-7
    )
