import itertools

import librosa
import numpy as np
import pytest
import soundfile

from lca_keras.audio.decode import decode
from lca_keras.base.config import FeatureConfig
from lca_keras.data import clips
from lca_keras.features.spectrogram import (
    clip_starts,
    hann_window,
    kept_frames,
    mel_spectrogram,
    silent_passages,
    sounding_frames,
)
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


# === Silence ===


def kept(sounding, config):
    return kept_frames(len(sounding), silent_passages(sounding), config)


@pytest.mark.parametrize("decibel", ["amplitude", "power"])
def test_silence_is_cut_out(decibel):
    config = FeatureConfig(decibel=decibel)
    second = 16000
    song = music(16000, seconds=6)
    rng = np.random.default_rng(0)
    noise = 1e-5 * rng.standard_normal(2 * second)  # Of 16 bits: no sound.
    pieces = [
        np.zeros(second // 2),
        song[: 2 * second],
        noise,
        song[2 * second : 4 * second] / 10,  # 20 dB softer is sound.
        np.zeros(second * 3 // 4),  # A rest.
        song[4 * second :],
        np.zeros(second // 2),
    ]
    for gain in (1.0, 0.1):
        samples = np.concatenate(pieces).astype("float32") * np.float32(gain)
        mel = mel_spectrogram(samples, config)
        frames = kept(sounding_frames(mel, config), config)
        # What is left, to the two windows that reach over each edge.
        borders = np.array([0.5, 2.5, 4.5, 6.5 + 0.75 + 2]) * 16000 / 512
        gaps = np.flatnonzero(np.diff(frames) > 1)
        assert len(gaps) == 1
        found = [frames[0], frames[gaps[0]], frames[gaps[0] + 1], frames[-1]]
        np.testing.assert_allclose(found, borders, atol=3)
        # As it is in the store, and in an exported graph.
        half = mel.astype("float16")
        np.testing.assert_array_equal(
            kept(sounding_frames(half, config), config), frames
        )
        (order,), (count,) = clips.sound_first(half[None].astype("float32"), config)
        assert int(count) == len(frames)
        np.testing.assert_array_equal(order[:count], frames)
        assert sorted(order.numpy()) == list(range(mel.shape[1]))


def test_kept_frames_by_hand():
    """Random passages, against groups that are counted one by one."""
    config = FeatureConfig()  # A second has 31 frames.
    rng = np.random.default_rng(1)
    masks = []
    for _ in range(50):
        runs = rng.choice([1, 5, 30, 31, 32, 60], 12)
        mask = np.repeat(np.arange(12) % 2 == rng.integers(2), runs)[:230]
        masks.append(np.pad(mask, (0, 230 - len(mask))))
    masks[0][:], masks[1][:] = True, False
    expected = []
    for mask in masks:
        frames, place = [], 0
        groups = [(sound, len(list(same))) for sound, same in itertools.groupby(mask)]
        for number, (sound, length) in enumerate(groups):
            end = number in (0, len(groups) - 1)
            if sound or (length < 31 and not end):
                frames += range(place, place + length)
            place += length
        # And one at each edge of what is left out.
        gone = {f + step for f in range(230) if f not in frames for step in (-1, 0, 1)}
        frames = [frame for frame in frames if frame not in gone]
        expected.append(frames)
        assert kept(mask, config).tolist() == frames
    # Cells far above the floor, so that silence is what is 80 dB below the loudest.
    mel = np.where(np.array(masks)[:, None], 20.0, -60.0) + np.zeros((1, 4, 1))
    mel[1] = 20.0  # By itself, all of a song that nowhere changes is sound.
    order, counts = clips.sound_first(mel.astype("float32"), config)
    for number, frames in enumerate(expected):
        if number != 1:
            assert order[number, : counts[number]].numpy().tolist() == frames


def test_what_has_no_sound_has_no_frames():
    config = FeatureConfig()
    mel = np.zeros((4, 128, 100), "float32")
    mel[1, 3, 70] = np.nan
    mel[2, 5, 7] = np.inf
    mel[3] = -100.0  # The floor of the decibels.
    _, counts = clips.sound_first(mel, config)
    assert counts.numpy().tolist() == [100, 0, 0, 0]
    assert kept(sounding_frames(mel[3], config), config).size == 0


@pytest.mark.parametrize("hop", [None, 50, 17, 80])
@pytest.mark.parametrize("frames", [0, 49, 50, 51, 99, 100, 203])
def test_clips_are_full(frames, hop):
    starts = clip_starts(frames, 50, hop)
    expected = [s for s in range(0, frames, hop or 50) if s + 50 <= frames]
    assert starts.tolist() == expected
    cut = clips.cut_clips(np.arange(frames, dtype="float32")[None], 50, hop)
    assert cut.shape == (len(expected), 1, 50)
    np.testing.assert_array_equal(cut[:, 0, 0], expected)
