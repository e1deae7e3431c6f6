"""Mel-spectrograms, computed with NumPy; equal to librosa's to 1e-3 dB.

With `level="song"` a song is first brought to one level, which librosa does not do.
"""

import functools
import itertools

import numpy as np

# Below this the published chain cuts off: `amin` of librosa's amplitude_to_db, also
# applied there to power.
FLOOR = 1e-5
# Far enough below it that the sum of two silences stays below it too.
STEM_FLOOR = 1e-7
# What `level="song"` makes of the mean power of a song's frames, summed over mel bands:
# about that of -18 dB of full scale.
SONG_LEVEL = 500.0
# Frames that are softer than the loudest by more, 40 dB, have no say in it.
LEVEL_GATE = 1e-4
# Frames transformed at a time; bounds memory for long songs.
_CHUNK_FRAMES = 1024


@functools.lru_cache(maxsize=8)
def mel_filters(config):
    """Slaney mel filters, `(mel_bins, n_fft // 2 + 1)` float32, read-only.

    Those of `librosa.filters.mel`, whose import takes longer than a song does.

    With `level="song"` nothing passes of the bins 0 and 1, all that Hann's window makes
    of a constant offset.
    """
    edges = hertz_at(np.arange(config.mel_bins + 2), config)[:, None]
    bins = np.arange(config.n_fft // 2 + 1) * config.sample_rate / config.n_fft
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    triangles = np.maximum(0, np.minimum(rising, falling))
    filters = (2 / (edges[2:] - edges[:-2]) * triangles).astype("float32")
    if config.level != "none":
        filters[:, :2] = 0
    filters.setflags(write=False)
    return filters


# Slaney's scale is linear up to 1 kHz, 200/3 Hz a mel, then logarithmic: 27 mels from 1
# to 6.4 kHz.
_LINEAR, _CORNER, _LOG_STEP = 200 / 3, 15.0, np.log(6.4) / 27


def hertz_at(places, config):
    """Hz of places on the mel scale: 0 is `fmin`, 1 the centre of the first band."""
    linear = np.array([config.fmin, config.fmax]) / _LINEAR
    above = np.log(np.maximum(linear, _CORNER) / _CORNER) / _LOG_STEP
    low, high = np.minimum(linear, _CORNER) + above
    step = (high - low) / (config.mel_bins + 1)
    mel = np.asarray(places) * step + low
    above = np.exp(_LOG_STEP * np.maximum(mel - _CORNER, 0))
    return _LINEAR * np.minimum(mel, _CORNER) * above


def hann_window(length):
    """Periodic Hann window, float32."""
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / length)
    return window.astype("float32")


def decibel_scale(config):
    """Factor of `log10` in the configured decibel definition."""
    return 20.0 if config.decibel == "amplitude" else 10.0


def mel_spectrogram(samples, config):
    """Log mel-spectrogram of a song.

    Args:
        samples: Float array `(samples,)` at `config.sample_rate`, or a collection of
            such arrays, a long song in pieces.

    Returns:
        Float32 array `(mel_bins, frames)`, decibels, at most `config.top_db` below
        the song's maximum.
    """
    return to_decibels(mel_power(samples, config), config)


def to_decibels(power, config):
    """The configured decibels of a whole song's `mel_power`; see `mel_spectrogram`."""
    # In place: of a long song this is most of the memory.
    decibels = power * level_gain(power, config)
    np.maximum(decibels, FLOOR, out=decibels)
    np.log10(decibels, out=decibels)
    decibels *= decibel_scale(config)
    np.maximum(decibels, decibels.max() - config.top_db, out=decibels)
    return decibels.astype("float32", copy=False)


def decibels_of(power, loudest, config):
    """The same for a batch of clips `(clips, …)`, inside a graph, without the level.

    `loudest`, float32 `(clips,)`, is the highest power of each clip's song.
    """
    from keras import ops

    scale = np.float32(decibel_scale(config) / np.log(10.0))
    floor = scale * ops.log(ops.maximum(loudest, FLOOR)) - config.top_db
    floor = ops.reshape(floor, (-1, *[1] * (len(power.shape) - 1)))
    return ops.maximum(scale * ops.log(ops.maximum(power, FLOOR)), floor)


def level_gain(power, config):
    """Factor that brings a song's `mel_power` to the level of all songs.

    Frames without sound don't count, so silence around a song changes nothing.
    """
    if config.level == "none":
        return np.float32(1)
    frames = power.sum(axis=0, dtype="float64")
    if not frames.any():
        return np.float32(1)
    sounding = frames[frames >= LEVEL_GATE * frames.max()]
    return np.float32(SONG_LEVEL / sounding.mean())


def stem_levels(power):
    """The form in which stems are kept, so that their powers can be added later.

    Decibels of power, `10 log10`, whatever the configuration, and nothing is cut off
    below the song's maximum: what is silent here may be added to something that is not.
    In float16, whose rounding is within 0.03 dB.
    """
    return (10 * np.log10(np.maximum(power, STEM_FLOOR))).astype("float16")


def stem_power(levels):
    """The power, float32, that `stem_levels` was made of."""
    return 10 ** (np.asarray(levels, "float32") / 10)


def mel_power(samples, config):
    """Mel-spectrogram of a song's power, float32 `(mel_bins, frames)`."""
    import scipy.fft

    if isinstance(samples, np.ndarray):
        samples = [samples]
    if config.level != "none":
        samples = _without_offset(samples)
    window, filters = hann_window(config.n_fft), mel_filters(config)
    mel = []
    for piece in _chunks(samples, config):
        windows = np.lib.stride_tricks.sliding_window_view(piece, config.n_fft)
        frames = windows[:: config.hop_length] * window
        spectrum = scipy.fft.rfft(frames, axis=-1)
        power = spectrum.real**2 + spectrum.imag**2
        mel.append(filters @ power.T)
    return np.concatenate(mel, axis=1)


def _without_offset(pieces):
    """Yields a song's pieces without their common mean.

    The filters stop it too, but for the steps at the song's ends.
    """
    size = sum(piece.size for piece in pieces)
    total = sum(piece.sum(dtype="float64") for piece in pieces)
    mean = np.float32(total / max(1, size))
    for piece in pieces:
        yield piece - mean


def _chunks(pieces, config):
    """Yields samples of a whole song, padded, `_CHUNK_FRAMES` windows at a time.

    However it comes in pieces, they are the same: the last bits of matrix products
    depend on their size.
    """
    half, hop = config.n_fft // 2, config.hop_length
    needed = (_CHUNK_FRAMES - 1) * hop + config.n_fft
    waiting = np.zeros(half, "float32")
    for piece in itertools.chain(pieces, [np.zeros(half)]):
        waiting = np.concatenate([waiting, np.asarray(piece, "float32")])
        while len(waiting) >= needed:
            yield waiting[:needed]
            waiting = waiting[_CHUNK_FRAMES * hop :]
    if len(waiting) >= config.n_fft:
        yield waiting
