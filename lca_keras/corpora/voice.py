"""Procedural singing by source-filter synthesis.

A glottal source (band-limited pulses and breath noise, along a sung pitch contour)
passes through time-varying vowel formants. The singer decides the vocal tract, the
source and the manner; the song decides melody and syllables.
"""

import dataclasses

import numpy as np
from scipy import signal

# Formant frequencies of five vowels for a vocal tract of average length, in Hz.
_VOWELS = {
    "a": (730, 1090, 2440, 3400, 4500),
    "e": (530, 1840, 2480, 3500, 4500),
    "i": (270, 2290, 3010, 3600, 4600),
    "o": (570, 840, 2410, 3300, 4500),
    "u": (300, 870, 2240, 3200, 4400),
}
_VOWEL_TABLE = np.array(list(_VOWELS.values()), float)
_BANDWIDTHS = np.array([70.0, 90.0, 130.0, 180.0, 250.0])
# Rate of pitch and loudness contours, in Hz; vibrato is far slower.
_CONTROL_RATE = 500


@dataclasses.dataclass(frozen=True)
class Singer:
    """What stays the same in everything that a singer sings."""

    center_midi: float  # Middle of the comfortable range.
    tract: float  # Scale of all formants; above 1 is a shorter vocal tract.
    formant_offsets: list[float]  # Factor of each: the tract's own shape.
    bandwidth: float  # Factor of the formants' bandwidths.
    tilt_db: float  # Slope of the glottal spectrum, an octave (negative).
    breath: float  # Amplitude of breath noise against the pulses.
    jitter: float  # Random pitch deviation, as a fraction.
    vibrato_hz: float  # Rate.
    vibrato_cents: float  # Depth.
    vibrato_delay: float  # Seconds from note onset to full vibrato.
    glide: float  # Time constant of pitch changes, in seconds.
    scoop_cents: float  # How far below the target a note begins.
    sibilance_hz: float  # Centre of the noise of fricatives.


def draw_cast(count, rng):
    """Draws `count` singers that differ from each other.

    Every attribute's range is cut into `count` slices, and each singer gets one of
    them (a Latin hypercube): independent draws would leave some pair of singers with
    nearly the same voice.
    """

    def spread(low, high):
        slices = (rng.permutation(count) + rng.random(count)) / count
        return low + (high - low) * slices

    # Range and tract go together, loosely, as they do in people.
    size = spread(-1, 1)
    columns = {
        "center_midi": 57 + 6 * size + spread(-2.5, 2.5),
        "tract": 1.04 + 0.12 * size + spread(-0.09, 0.09),
        "formant_offsets": np.stack([spread(0.88, 1.12) for _ in range(5)], axis=1),
        "bandwidth": spread(0.7, 1.6),
        "tilt_db": spread(-9, -3),
        "breath": 10 ** spread(-2.2, -0.9),
        "jitter": 10 ** spread(-3.0, -2.2),
        "vibrato_hz": spread(4.2, 7.2),
        "vibrato_cents": spread(5, 110),
        "vibrato_delay": spread(0.05, 0.4),
        "glide": 10 ** spread(-2.0, -1.1),
        "scoop_cents": spread(0, 250),
        "sibilance_hz": spread(3800, 6800),
    }
    rows = zip(*(column.tolist() for column in columns.values()), strict=True)
    return [Singer(**dict(zip(columns, row, strict=True))) for row in rows]


@dataclasses.dataclass(frozen=True)
class Note:
    """A sung syllable: start and length in seconds, MIDI pitch, vowel, consonant."""

    start: float
    length: float
    midi: float
    vowel: int
    consonant: str


def sing(singer, notes, num_samples, sample_rate, rng):
    """Renders a non-empty list of notes, in order, in a singer's voice.

    Returns float32 arrays `(num_samples,)`: the voice, and its pitch in Hz at every
    sample, 0 where nobody sings. `rng` is for jitter and noise.
    """
    times = np.arange(num_samples * _CONTROL_RATE // sample_rate + 2) / _CONTROL_RATE
    pitch, loudness = _contours(singer, notes, times, rng)
    at = np.arange(num_samples) / sample_rate
    hertz = np.interp(at, times, pitch).astype("float32")
    gain = np.interp(at, times, loudness).astype("float32")

    source = _pulses(hertz, sample_rate)
    breath = rng.standard_normal(num_samples, dtype="float32")
    # Breath follows the opening of the glottis: it is louder within each pulse.
    source += singer.breath * breath * (1 + np.abs(source))
    voiced = _shape(source * gain, singer, notes, sample_rate)
    voice = voiced / (np.sqrt(np.mean(voiced**2)) + 1e-9)
    voice += _consonants(singer, notes, num_samples, sample_rate, rng)
    return voice.astype("float32"), np.where(gain > 0.05, hertz, 0.0)


def _contours(singer, notes, times, rng):
    """Pitch in Hz and loudness at control times."""
    midi = np.full(times.shape, notes[0].midi, float)
    onset = np.zeros(times.shape)
    loudness = np.zeros(times.shape)
    for note in notes:
        inside = times >= note.start
        midi[inside] = note.midi
        onset[inside] = note.start
        since = times - note.start
        attack = np.clip(since / 0.04, 0, 1)
        release = np.clip((note.start + note.length - times) / 0.06, 0, 1)
        body = 0.75 + 0.25 * np.sin(np.pi * np.clip(since / note.length, 0, 1))
        loudness = np.maximum(loudness, np.minimum(attack, release) * body)
    since = times - onset
    midi = midi - singer.scoop_cents / 100 * np.exp(-since / 0.05)
    # One-pole smoothing is the glide from note to note.
    pole = np.exp(-1 / (singer.glide * _CONTROL_RATE))
    midi, _ = signal.lfilter([1 - pole], [1, -pole], midi, zi=[pole * midi[0]])
    swell = np.clip(since / singer.vibrato_delay, 0, 1) ** 2
    phase = 2 * np.pi * singer.vibrato_hz * times + rng.uniform(0, 2 * np.pi)
    midi = midi + swell * singer.vibrato_cents / 100 * np.sin(phase)
    # Jitter below 30 Hz: slower than a period, faster than vibrato.
    drift = signal.lfilter(
        *signal.butter(2, 30, fs=_CONTROL_RATE), rng.standard_normal(times.size)
    )
    hertz = 440 * 2 ** ((midi - 69) / 12) * (1 + 3 * singer.jitter * drift)
    return hertz, loudness


def _pulses(hertz, sample_rate):
    """Pulse train with all harmonics up to half the sample rate, equally strong."""
    phase = np.pi * np.cumsum(hertz, dtype="float64") / sample_rate
    # The Dirichlet kernel sums `harmonics` cosines in two sines. The number is
    # constant over the song: changing it would click.
    harmonics = int(0.5 * sample_rate / hertz.max())
    sine = np.sin(phase)
    near_zero = np.abs(sine) < 1e-6
    kernel = np.sin((2 * harmonics + 1) * phase) / np.where(near_zero, 1, sine)
    kernel = np.where(near_zero, 2 * harmonics + 1, kernel) - 1
    return (kernel / np.sqrt(2 * harmonics)).astype("float32")


def _shape(source, singer, notes, sample_rate):
    """Filters the source by vowel formants and the glottal tilt, frame by frame."""
    size, hop = 512, 128
    transform = signal.ShortTimeFFT(
        signal.windows.hann(size, sym=False), hop, fs=sample_rate, fft_mode="onesided"
    )
    spectrum = transform.stft(source)
    frequencies = transform.f
    times = transform.t(source.size)
    # Formant targets at the notes, blended over 60 ms where syllables meet.
    knots = np.array([t for n in notes for t in (n.start + 0.03, n.start + n.length)])
    vowels = np.repeat([n.vowel for n in notes], 2)
    formants = np.stack(
        [np.interp(times, knots, column[vowels]) for column in _VOWEL_TABLE.T], axis=1
    )
    formants *= singer.tract * np.array(singer.formant_offsets)
    bandwidths = _BANDWIDTHS * singer.bandwidth
    gain = np.ones((len(times), len(frequencies)))
    for column, bandwidth in zip(formants.T, bandwidths, strict=True):
        squared = column[:, None] ** 2
        gain *= squared / np.sqrt(
            (frequencies**2 - squared) ** 2 + (bandwidth * frequencies) ** 2
        )
    # The poles above the fifth formant, which a cascade of five leaves out.
    gain *= np.exp(0.6 * (frequencies / (4500 * singer.tract)) ** 2)
    octaves = np.log2(np.maximum(frequencies, 50) / 100)
    gain *= 10 ** (singer.tilt_db * octaves / 20)
    return transform.istft(spectrum * gain.T, k1=source.size)


def _consonants(singer, notes, num_samples, sample_rate, rng):
    """Bursts of noise at the onsets: fricatives and plosives."""
    kinds = {"s": (0.09, 1.0, 0.25), "t": (0.025, 0.8, 0.5), "k": (0.03, 0.4, 0.5)}
    result = np.zeros(num_samples)
    for note in notes:
        if note.consonant not in kinds:
            continue
        length, height, level = kinds[note.consonant]
        count = int(length * sample_rate)
        start = int(note.start * sample_rate) - count // 2
        if start < 0 or start + count > num_samples:
            continue
        center = min(height * singer.sibilance_hz, 0.4 * sample_rate)
        band = np.array([0.7, 1.2]) * center
        burst = rng.standard_normal(count)
        burst = signal.lfilter(*signal.butter(2, band, "band", fs=sample_rate), burst)
        result[start : start + count] += level * burst * np.hanning(count)
    return result
