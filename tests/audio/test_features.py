import librosa
import numpy as np
import pytest
import soundfile

from lca_keras.audio.decode import AudioError, decode
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
    ours = decode(path)
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


def test_window_is_periodic():
    np.testing.assert_allclose(
        hann_window(2048), librosa.filters.get_window("hann", 2048), atol=1e-7
    )


@pytest.mark.parametrize("suffix", ["flac", "ogg", "mp3", "aiff"])
def test_formats(suffix, tmp_path):
    path = tmp_path / f"song.{suffix}"
    samples = music(44100, channels=2)
    soundfile.write(path, samples, 44100)
    expected, _ = librosa.load(path, sr=16000)
    np.testing.assert_allclose(decode(path), expected, atol=1e-6)


def test_eight_channels_at_192_khz(tmp_path):
    path = tmp_path / "song.wav"
    samples = music(192000, seconds=2, channels=8)
    soundfile.write(path, samples, 192000)
    expected, _ = librosa.load(path, sr=16000)
    np.testing.assert_allclose(decode(path), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: path.write_bytes(b""), r"empty file \(0 bytes\)"),
        (lambda path: path.write_text("not music " * 500), "not decodable"),
        (lambda path: soundfile.write(path, np.zeros(0), 16000), "no audio"),
        (lambda path: soundfile.write(path, np.zeros(99), 16000), "silent"),
        (
            lambda path: soundfile.write(
                path, np.array([np.nan, 0.1]), 16000, subtype="FLOAT"
            ),
            "NaN",
        ),
        (lambda path: None, "cannot be read: No such file"),
        (lambda path: path.mkdir(), "cannot be read: Is a directory"),
    ],
)
def test_says_why_a_file_cannot_be_used(make, reason, tmp_path):
    path = tmp_path / "bad.wav"
    make(path)
    with pytest.raises(AudioError, match=reason):
        decode(path)


def test_truncated_flac_is_an_error_not_a_crash(tmp_path):
    path = tmp_path / "song.flac"
    soundfile.write(path, music(16000), 16000)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])
    with pytest.raises(AudioError, match="not decodable"):
        decode(path)
