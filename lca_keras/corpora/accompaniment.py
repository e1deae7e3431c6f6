"""Procedural accompaniment: a handful of instruments, bass and drums."""

import functools
import types

import numpy as np
from scipy import signal

# name: (harmonics' rolloff exponent, odd harmonics only, attack s, decay s or None)
_TIMBRES = {
    "piano": (1.5, False, 0.004, 0.7),
    "guitar": (1.1, False, 0.002, 0.35),
    "marimba": (2.4, True, 0.002, 0.2),
    "organ": (0.9, False, 0.01, None),
    "clarinet": (1.2, True, 0.04, None),
    "strings": (1.3, False, 0.12, None),
}
_PATTERNS = ("block", "arpeggio", "offbeat", "pulse")
_PROGRESSIONS = (
    (0, 5, 3, 4),
    (0, 3, 4, 3),
    (5, 3, 0, 4),
    (0, 4, 5, 3),
    (1, 4, 0, 0),
)
MAJOR = (0, 2, 4, 5, 7, 9, 11)


def draw_style(rng):
    """A band's sound: what a careless network learns in place of the voice."""
    return types.SimpleNamespace(
        timbre=str(rng.choice(list(_TIMBRES))),  # Of the chords.
        brightness=rng.uniform(0.8, 1.3),  # Factor of its rolloff; below 1 is brighter.
        detune_cents=rng.uniform(0, 12),  # Of a second oscillator.
        register=int(rng.integers(0, 3)),  # Octaves of the chords above MIDI note 48.
        pattern=str(rng.choice(_PATTERNS)),
        tempo=rng.uniform(80, 140),  # Before a song's own deviation.
        kick_hz=rng.uniform(45, 75),
        snare_hz=rng.uniform(1200, 3500),  # Centre of its noise.
        hat_level=rng.uniform(0.1, 0.5),
        hats_per_beat=int(rng.choice([1, 2, 4])),
        bass_level=rng.uniform(0.4, 1.0),
        drum_level=rng.uniform(0.3, 1.0),
    )


def play(style, tempo, key_midi, num_samples, sample_rate, rng):
    """Renders a band: float32 `(num_samples,)` with a root mean square of one.

    `tempo` is in beats a minute, `key_midi` the MIDI note of the tonic, 0 to 11.
    """
    beat = 60 / tempo
    beats = int(np.ceil(num_samples / sample_rate / beat))
    progression = _PROGRESSIONS[rng.integers(len(_PROGRESSIONS))]
    tone = functools.lru_cache(maxsize=None)(
        functools.partial(_tone, sample_rate=sample_rate, detune=style.detune_cents)
    )
    rolloff, odd, attack, decay = _TIMBRES[style.timbre]
    timbre = (rolloff * style.brightness, odd, attack, decay)
    chords, bass = np.zeros((2, num_samples))
    drums = play_drums(style, tempo, num_samples, sample_rate, rng)
    for index in range(beats):
        now = index * beat
        degree = progression[index // 4 % 4]
        triad = [
            48 + 12 * style.register + key_midi + _scale(degree + step)
            for step in (0, 2, 4)
        ]
        for offset, length, pitches in _figure(style.pattern, index, triad):
            for pitch in pitches:
                sound = tone(pitch, round(length * beat, 3), *timbre)
                _place(chords, sound, now + offset * beat, sample_rate)
        if index % 2 == 0:
            pitch = 36 + key_midi + _scale(degree)
            sound = tone(pitch, round(1.8 * beat, 3), 2.0, False, 0.01, 0.8)
            _place(bass, sound, now, sample_rate)
    mix = np.zeros(num_samples)
    levels = (1.0, style.bass_level, style.drum_level)
    for track, level in zip((chords, bass, drums), levels, strict=True):
        mix += level * track / (np.sqrt(np.mean(track**2)) + 1e-9)
    return (mix / np.sqrt(np.mean(mix**2))).astype("float32")


def play_drums(style, tempo, num_samples, sample_rate, rng):
    """Renders the drums alone; see `play`."""
    drums, beat = np.zeros(num_samples), 60 / tempo
    kick, snare, hat = _drum_kit(style, sample_rate, rng)
    for index in range(int(np.ceil(num_samples / sample_rate / beat))):
        now = index * beat
        _place(drums, snare if index % 2 else kick, now, sample_rate)
        for hit in range(style.hats_per_beat):
            then = now + hit * beat / style.hats_per_beat
            _place(drums, hat, then, sample_rate)
    return drums


def _place(track, sound, seconds, sample_rate):
    """Adds a sound to a track from some time on, as far as the track goes."""
    start = int(seconds * sample_rate)
    sound = sound[: max(len(track) - start, 0)]
    track[start : start + sound.size] += sound


def _scale(degree):
    """Semitones above the tonic of a degree of the major scale."""
    octave, step = divmod(degree, 7)
    return 12 * octave + MAJOR[step]


def _figure(pattern, index, triad):
    """Chord notes of one beat: (offset and length in beats, MIDI pitches)."""
    if pattern == "block":
        return [(0.0, 3.9, triad)] if index % 4 == 0 else []
    if pattern == "offbeat":
        return [(0.5, 0.4, triad)]
    if pattern == "pulse":
        return [(0.0, 0.45, triad), (0.5, 0.45, triad)]
    first = index % 2
    order = (triad[0], triad[1], triad[2], triad[1])
    return [(0.0, 0.9, [order[2 * first]]), (0.5, 0.9, [order[2 * first + 1]])]


def _tone(midi, length, rolloff, odd, attack, decay, *, sample_rate, detune):
    """One note: two detuned stacks of harmonics under an envelope."""
    tail = 0.08 if decay is None else min(3 * decay, 0.6)
    times = np.arange(int((length + tail) * sample_rate)) / sample_rate
    wave = np.zeros(times.size, "float32")
    for cents in (-detune / 2, detune / 2):
        hertz = 440 * 2 ** ((midi - 69 + cents / 100) / 12)
        for harmonic in range(1, 13, 2 if odd else 1):
            if harmonic * hertz > 0.45 * sample_rate:
                break
            phase = (2 * np.pi * harmonic * hertz * times).astype("float32")
            wave += harmonic**-rolloff * np.sin(phase)
    envelope = np.minimum(times / attack, 1.0)
    if decay is not None:
        envelope = envelope * np.exp(-times / decay)
    envelope = envelope * np.clip((length + tail - times) / tail, 0, 1)
    return wave * envelope.astype("float32")


def _drum_kit(style, sample_rate, rng):
    """Bass drum, snare and hi-hat strokes."""
    times = np.arange(int(0.25 * sample_rate)) / sample_rate
    sweep = style.kick_hz * (times + 0.06 * (1 - np.exp(-times / 0.03)))
    kick = np.sin(2 * np.pi * sweep) * np.exp(-times / 0.08)
    noise = rng.standard_normal((2, times.size))
    band = np.array([0.6, 1.6]) * style.snare_hz
    snare = signal.lfilter(*signal.butter(2, band, "band", fs=sample_rate), noise[0])
    snare = 1.5 * snare * np.exp(-times / 0.07)
    snare += 0.4 * np.sin(2 * np.pi * 190 * times) * np.exp(-times / 0.04)
    edge = 0.38 * sample_rate
    hat = signal.lfilter(*signal.butter(2, edge, "high", fs=sample_rate), noise[1])
    return kick, snare, style.hat_level * hat * np.exp(-times / 0.025)
