import librosa
import numpy as np
import pytest

from lca_keras.base.sections import FeatureConfig
from lca_keras.corpora import synthesis
from lca_keras.features.melody import contour, melody_bands
from lca_keras.features.spectrogram import mel_spectrogram

PYIN = FeatureConfig(melody="pyin")


def nearest_band(hertz):
    """Independent: the band whose centre is nearest on the mel scale."""
    centres = librosa.hz_to_mel(librosa.mel_frequencies(130, fmin=0, fmax=8000)[1:-1])
    return np.abs(centres[:, None] - librosa.hz_to_mel(hertz)[None]).argmin(axis=0)


@pytest.fixture(scope="module")
def sung():
    """A voice alone; its true pitch on the frames of the spectrogram."""
    corpus = synthesis.SynthesisConfig(seconds=8.0)
    song = synthesis.synthesize(corpus, artist=1, album=0, song=0)
    return song.vocals, np.append(song.pitch, 0)[::512]


def check_against_truth(bands, pitch, recall, precision):
    both = (bands >= 0) & (pitch > 0)
    assert both.sum() > recall * (pitch > 0).sum()
    # One band of slack: the pitch glides within a frame.
    error = np.abs(bands[both] - nearest_band(pitch[both]))
    assert np.mean(error <= 1) > precision


def test_pyin_follows_the_sung_melody(sung):
    vocals, pitch = sung
    bands = melody_bands(vocals, PYIN)
    assert bands.dtype == np.int16
    check_against_truth(bands, pitch[: len(bands)], recall=0.95, precision=0.9)


@pytest.mark.torch
def test_crepe_follows_the_sung_melody(sung):
    pytest.importorskip("torchcrepe")
    vocals, pitch = sung
    bands = melody_bands(vocals, FeatureConfig(melody="crepe"))
    check_against_truth(bands, pitch[: len(bands)], recall=0.9, precision=0.9)


@pytest.mark.parametrize("hertz", [98.0, 220.0, 440.0, 880.0])
def test_band_of_a_tone_is_the_brightest_of_its_spectrogram(hertz):
    tone = 0.3 * np.sin(2 * np.pi * hertz * np.arange(24000) / 16000)
    bands = melody_bands(tone, PYIN)[4:-4]
    assert (bands == bands[0]).all()
    mel = mel_spectrogram(tone, PYIN)
    assert abs(int(mel[:, 20].argmax()) - bands[0]) <= 1
    assert bands[0] == nearest_band(np.array([hertz]))[0]


@pytest.mark.parametrize("samples", [2048, 16000, 16001, 16383, 16384])
def test_frames_are_those_of_the_spectrogram(samples):
    sound = np.random.default_rng(0).normal(0, 0.1, samples).astype("float32")
    frames = mel_spectrogram(sound, PYIN).shape[1]
    assert melody_bands(sound, PYIN).shape == (frames,)


def test_silence_between_notes_is_unvoiced(sung):
    tone = 0.3 * np.sin(2 * np.pi * 220 * np.arange(16000) / 16000)
    hum = 1e-4 * np.sin(2 * np.pi * 100 * np.arange(32000) / 16000)
    bands = melody_bands(np.concatenate([tone, hum]), PYIN)
    assert (bands[2:28] >= 0).all()
    assert (bands[36:] == -1).all()


def test_contour_is_one_hot():
    image = contour(np.array([3, -1, 0, 127]), 128)
    assert image.shape == (128, 4)
    assert image.sum(axis=0).tolist() == [1, 0, 1, 1]
    assert image[:, [0, 2, 3]].argmax(axis=0).tolist() == [3, 0, 127]
