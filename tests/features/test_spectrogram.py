import librosa
import numpy as np
import pytest
import soundfile

from lca_keras.audio.decode import decode
from lca_keras.base.sections import FeatureConfig
from lca_keras.features.spectrogram import hann_window, mel_spectrogram
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
    mel = mel_spectrogram(ours, FeatureConfig(level="none"))
    assert mel.dtype == np.float32
    assert mel.shape == (128, 1 + len(samples) // 512)
    np.testing.assert_allclose(mel, librosa.amplitude_to_db(power), atol=1e-3)
    mel = mel_spectrogram(ours, FeatureConfig(level="none", decibel="power"))
    expected = librosa.power_to_db(power, amin=1e-5)
    np.testing.assert_allclose(mel, expected, atol=1e-3)


def test_long_songs_are_not_cut_at_chunk_borders():
    samples = music(16000, seconds=70)
    power = librosa.feature.melspectrogram(
        y=samples, sr=16000, n_fft=2048, hop_length=512, n_mels=128
    )
    mel = mel_spectrogram(samples, FeatureConfig(level="none"))
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


# === Level ===


def test_song_level_from_librosa_on():
    samples = music(16000, seconds=6) + 0.1
    spectrum = librosa.stft(samples - samples.mean(), n_fft=2048, hop_length=512)
    spectrum[:2] = 0  # Of 7.8 Hz each.
    power = librosa.feature.melspectrogram(S=np.abs(spectrum) ** 2, sr=16000)
    frames = power.sum(axis=0)
    power *= 500 / frames[frames >= frames.max() / 10**4].mean()
    for decibel, convert in (
        ("amplitude", librosa.amplitude_to_db),
        ("power", librosa.power_to_db),
    ):
        mel = mel_spectrogram(samples, FeatureConfig(decibel=decibel))
        expected = convert(power, amin=1e-5)
        np.testing.assert_allclose(mel, expected, atol=2e-3)


@pytest.mark.parametrize("offset", [0.0, -0.3])
@pytest.mark.parametrize("gain", [0.001, 0.25, 30.0])
def test_level_and_offset_are_no_matter(gain, offset):
    samples = music(16000, seconds=6)
    expected = mel_spectrogram(samples, FeatureConfig())
    mel = mel_spectrogram(np.float32(gain) * (samples + offset), FeatureConfig())
    np.testing.assert_allclose(mel, expected, atol=0.01)


def test_silence_around_a_song_is_no_matter():
    samples = music(16000, seconds=6)
    config = FeatureConfig()
    expected = mel_spectrogram(samples, config)
    front, behind = np.zeros(512 * 100), np.zeros(16000 * 100)
    padded = np.concatenate([front, samples, behind]).astype("float32")
    mel = mel_spectrogram(padded, config)[:, 100 : 100 + expected.shape[1]]
    # But for windows that reach into it, two more at each end, in the mean power.
    frames = expected.shape[1]
    atol = 20 * np.log10((frames + 4) / frames)
    np.testing.assert_allclose(mel[:, 4:-4], expected[:, 4:-4], atol=atol)
