"""Mel-spectrograms, computed with NumPy; equal to librosa's to 1e-3 dB."""

import functools
import itertools

import numpy as np

# Below this the published chain cuts off: `amin` of librosa's amplitude_to_db, also
# applied there to power.
FLOOR = 1e-5
# Far enough below it that the sum of two silences stays below it too.
STEM_FLOOR = 1e-7
# Frames transformed at a time; bounds memory for long songs.
_CHUNK_FRAMES = 1024


@functools.lru_cache(maxsize=8)
def mel_filters(config):
    """Slaney mel filters, `(mel_bins, n_fft // 2 + 1)` float32, read-only."""
    import librosa.filters

    filters = librosa.filters.mel(
        sr=config.sample_rate,
        n_fft=config.n_fft,
        n_mels=config.mel_bins,
        fmin=config.fmin,
        fmax=config.fmax,
    )
    filters.setflags(write=False)
    return filters


def hann_window(length):
    """Periodic Hann window, float32."""
    return (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / length)).astype(
        "float32"
    )


def decibel_scale(config):
    """Factor of `log10` in the configured decibel definition."""
    return 20.0 if config.decibel == "amplitude" else 10.0


def mel_spectrogram(samples, config):
    """Log mel-spectrogram of a song.

    Args:
        samples: Float array `(samples,)` at `config.sample_rate`, or an iterable of
            such arrays, a long song in pieces.
        config: `lca_keras.config.FeatureConfig`.

    Returns:
        Float32 array `(mel_bins, frames)`, decibels, at most `config.top_db` below
        the song's maximum.
    """
    return to_decibels(mel_power(samples, config), config)


def to_decibels(power, config):
    """The configured decibels of a whole song's `mel_power`; see `mel_spectrogram`."""
    decibels = decibel_scale(config) * np.log10(np.maximum(power, FLOOR))
    return np.maximum(decibels, decibels.max() - config.top_db).astype("float32")


def stem_levels(power):
    """The form in which stems are kept, so that their powers can be added later.

    Decibels of power, `10 log10`, whatever the configuration, and nothing is cut off
    below the song's maximum: what is silent here may be added to something that is not.

    Args:
        power: Float array, as `mel_power` gives it.

    Returns:
        Float16 array of the same shape; rounding is within 0.03 dB.
    """
    return (10 * np.log10(np.maximum(power, STEM_FLOOR))).astype("float16")


def stem_power(levels):
    """The power, float32, that `stem_levels` was made of."""
    return 10 ** (np.asarray(levels, "float32") / 10)


def mel_power(samples, config):
    """Mel-spectrogram of a song's power, float32 `(mel_bins, frames)`."""
    import scipy.fft

    window, filters = hann_window(config.n_fft), mel_filters(config)
    mel = []
    for frames in _frames(samples, config):
        spectrum = scipy.fft.rfft(frames * window, axis=-1)
        power = spectrum.real**2 + spectrum.imag**2
        mel.append(filters @ power.T)
    return np.concatenate(mel, axis=1)


def _frames(samples, config):
    """Yields arrays `(frames, n_fft)`, the windows of a whole song, centred.

    However it comes in pieces, they are the same: the last bits of matrix products
    depend on their size.
    """
    pieces = [samples] if isinstance(samples, np.ndarray) else samples
    half, hop = config.n_fft // 2, config.hop_length
    needed = (_CHUNK_FRAMES - 1) * hop + config.n_fft
    waiting = np.zeros(half, "float32")
    for piece in itertools.chain(pieces, [np.zeros(half)]):
        waiting = np.concatenate([waiting, np.asarray(piece, "float32")])
        while len(waiting) >= needed:
            yield _windows(waiting[:needed], config)
            waiting = waiting[_CHUNK_FRAMES * hop :]
    if len(waiting) >= config.n_fft:
        yield _windows(waiting, config)


def _windows(samples, config):
    windows = np.lib.stride_tricks.sliding_window_view(samples, config.n_fft)
    return windows[:: config.hop_length]
