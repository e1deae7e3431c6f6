"""Sounds that are made to hear what a model says of them: speech, drums, duets."""

import dataclasses

import numpy as np
import soundfile

from lca_keras.corpora import accompaniment, voice

# Files of each kind of sound that nobody sings, or no singer.
SOUNDS = 20
TURN_SECONDS = 8.0


def spoken(rng, size, rate):
    """Invented speakers: short syllables, a falling pitch, no vibrato."""
    sounds, seconds = [], size / rate
    for singer in voice.draw_cast(SOUNDS, rng):
        speaker = dataclasses.replace(
            singer,
            vibrato_cents=0.0,
            scoop_cents=0.0,
            glide=0.05,
            center_midi=singer.center_midi - 7,
        )
        notes, now = [], 0.2
        while now < seconds - 3:
            count = int(rng.integers(6, 14))
            for syllable in range(count):
                length = rng.uniform(0.1, 0.25)
                pitch = speaker.center_midi + 3 - 5 * syllable / count
                consonant = str(rng.choice(["", "s", "t", "k"]))
                vowel = int(rng.integers(5))
                pitch += 0.7 * rng.standard_normal()
                notes.append(voice.Note(now, 0.9 * length, pitch, vowel, consonant))
                now += length
            now += rng.uniform(0.2, 0.6)
        sounds.append(0.05 * voice.sing(speaker, notes, size, rate, rng)[0])
    return sounds


def drums(rng, size, rate):
    """Drum loops of invented bands."""
    return [
        0.05
        * accompaniment.play_drums(accompaniment.draw_style(rng), 110, size, rate, rng)
        for _ in range(SOUNDS)
    ]


def duet(songs, pair, overlapping, seed):
    """Two singers who take turns over one band, by their test songs' stems.

    Args:
        songs: Dict from artist to a list of `lca_keras.data.catalogue.Song`.
        pair: Two artists.
        overlapping: Whether each turn begins half a turn early, while the other one
            still sings.
        seed: Int, chooses the songs.

    Returns:
        Samples, and list of tuples of start, end (seconds) and artist.
    """
    rng = np.random.default_rng(seed)
    chosen = [songs[name][int(rng.integers(len(songs[name])))] for name in pair]
    rate = soundfile.info(chosen[0].vocals_path).samplerate
    (first, band), (other, other_band) = (
        [
            soundfile.read(path, dtype="float32")[0]
            for path in (song.vocals_path, song.accompaniment_path)
        ]
        for song in chosen
    )
    # Voices over one band, each as loud over it as over its own.
    voices = [first, other * np.sqrt(np.mean(band**2) / np.mean(other_band**2))]
    size = min(map(len, (band, *voices)))
    band, voices = np.tile(band[:size], 2), [np.tile(v[:size], 2) for v in voices]
    turn = int(TURN_SECONDS * rate)
    samples, turns = band.copy(), []
    early = turn // 2 if overlapping else 0
    for number, start in enumerate(range(0, len(band), turn)):
        begin, end = max(0, start - early), min(start + turn, len(band))
        samples[begin:end] += voices[number % 2][begin:end]
        turns.append((begin / rate, end / rate, pair[number % 2]))
    return 0.7 * samples / np.abs(samples).max(), turns
