"""Silence on samples: NumPy against counting by hand, and against the graph."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from lca_keras.audio import decode
from lca_keras.audio.decode import Sound
from lca_keras.features import silence
from tests.audio.signals import music

RATE, BLOCK = 16000, 512
DEPTH = 40.0


def in_pieces(samples, sizes):
    sound, place = Sound(RATE), 0
    for size in sizes:
        sound.append(samples[place : place + size])
        place += size
    sound.append(samples[place:])
    return sound


def in_graph(songs, depth=DEPTH):
    """The sound that the graph leaves of songs of several lengths, in one batch."""
    lengths = [song.size for song in songs]
    batch = np.zeros((len(songs), max(lengths) + 777), "float32")
    for row, song in zip(batch, songs, strict=True):
        row[: song.size] = song
    sound, left, order = silence.cut_in_graph(
        tf.constant(batch), tf.constant(lengths, tf.int32), RATE, depth
    )
    for row in order.numpy():
        assert sorted(row) == list(range(-(-batch.shape[1] // BLOCK)))
    return [row[:size] for row, size in zip(sound.numpy(), left.numpy(), strict=True)]


def blocks_kept_by_hand(sounding):
    """Groups of blocks, counted one by one: pauses of 31 blocks and more go."""
    kept, place = [], 0
    groups = [(sound, len(list(same))) for sound, same in itertools.groupby(sounding)]
    for number, (sound, length) in enumerate(groups):
        end = number in (0, len(groups) - 1)
        if sound or (length < 31 and not end):
            kept += range(place, place + length)
        place += length
    return kept


def test_random_passages_by_hand_and_in_the_graph(monkeypatch):
    rng = np.random.default_rng(1)
    songs, expected = [], []
    monkeypatch.setattr(decode, "_SAMPLES_AT_ONCE", 5000)  # In several pieces.
    for number in range(40):
        runs = rng.choice([1, 5, 30, 31, 32, 60], 12)
        mask = np.repeat(np.arange(12) % 2 == rng.integers(2), runs)[:230]
        mask[:] |= number == 0
        rest = int(rng.integers(0, BLOCK))  # Behind the last whole block.
        loud = (
            rng.choice([-1.0, 1.0], (len(mask), BLOCK))
            * np.where(mask, 1, 0.009)[:, None]
        )
        # However much each block is moved: what is constant is no sound.
        samples = (loud + rng.uniform(-3, 3, (len(mask), 1))).ravel()
        samples = np.append(samples, rng.normal(0, 1, rest)).astype("float32")
        blocks = blocks_kept_by_hand(mask)
        pieces = [samples[BLOCK * n : BLOCK * n + BLOCK] for n in blocks]
        if blocks[-1:] == [len(mask) - 1]:
            pieces.append(samples[BLOCK * len(mask) :])
        songs.append(samples)
        expected.append(np.concatenate([np.zeros(0), *pieces]))
        sound = in_pieces(samples, rng.integers(0, 5000, 20))
        passages = silence.passages(sound, DEPTH)
        found = silence.Passages(sound, passages)
        np.testing.assert_array_equal(found.samples, expected[-1])
        assert silence.seconds(passages) * RATE == pytest.approx(found.size, abs=1e-6)
        # Where each sample of the sound was in the song.
        times = np.arange(0, found.size, 97) / RATE
        places = np.round(silence.song_seconds(passages, times) * RATE).astype(int)
        if found.size:
            np.testing.assert_array_equal(samples[places], found.samples[::97])
    for found, sound in zip(in_graph(songs), expected, strict=True):
        np.testing.assert_array_equal(found, sound)


@pytest.mark.parametrize("gain", [1.0, 1e-3])
def test_silence_of_a_song_is_cut_out(gain):
    song = music(RATE, seconds=6)
    rng = np.random.default_rng(0)
    noise = 1e-5 * rng.standard_normal(2 * RATE)  # Of 16 bits: no sound.
    pieces = [
        np.zeros(RATE // 2),
        song[: 2 * RATE],
        noise,
        song[2 * RATE : 4 * RATE] / 10,  # 20 dB softer is sound.
        np.zeros(RATE * 3 // 4),  # A rest.
        song[4 * RATE :],
        np.zeros(RATE // 2),
    ]
    samples = (gain * np.concatenate(pieces)).astype("float32")
    passages = silence.passages(Sound.of(samples, RATE), DEPTH)
    borders = [0.5, 2.5, 4.5, 6.5 + 0.75 + 2]
    np.testing.assert_allclose(passages, borders, atol=2 * BLOCK / RATE)
    (found,) = in_graph([samples])
    assert found.size == round(silence.seconds(passages) * RATE)


def test_what_never_changes_has_no_sound():
    for samples in (np.zeros(50_000, "float32"), np.full(50_000, 0.25, "float32")):
        assert silence.passages(Sound.of(samples, RATE), DEPTH) == ()
        assert in_graph([samples])[0].size == 0
    assert silence.passages(Sound.of(np.ones(5, "float32"), RATE), DEPTH) == ()


def test_how_deep_silence_lies_is_the_front_ends_matter():
    rng = np.random.default_rng(0)
    loud, soft = rng.choice([-1.0, 1.0], (2, RATE * 2)).astype("float32")
    samples = np.concatenate([loud, soft * 10 ** (-50 / 20), loud])
    for depth, size in ((40.0, 4), (60.0, 6)):
        passages = silence.passages(Sound.of(samples, RATE), depth)
        assert silence.seconds(passages) == pytest.approx(size, abs=2 * BLOCK / RATE)
        assert in_graph([samples], depth)[0].size == round(
            silence.seconds(passages) * RATE
        )
