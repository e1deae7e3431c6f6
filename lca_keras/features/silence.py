"""Silence, found on samples and kept in seconds; in NumPy, and the same in a graph.

A song's samples are looked at in blocks of 32 ms. A block is silent if its power, about
its own mean, is too far below that of the loudest block. Silence before and after the
sound, and pauses of a second and more in it, are cut out before anything else is
computed, so neither clips nor answers depend on them. What follows the last whole block
goes with it.
"""

import numpy as np

from lca_keras.audio.decode import Sound

BLOCK_SECONDS = 0.032
# Blocks of the shortest pause, a second.
_PAUSE = round(1.0 / BLOCK_SECONDS)


def block_size(sample_rate):
    """Samples of a block."""
    return round(BLOCK_SECONDS * sample_rate)


def passages(sound, range_db):
    """The passages of a `Sound` within `range_db` decibels of its loudest block.

    Returns:
        Tuple of floats, seconds: each passage's beginning and its end. None of a song
        whose samples are all the same.
    """
    size = block_size(sound.sample_rate)
    powers = np.concatenate([*_powers(sound, size)])
    sounding = powers > powers.max(initial=0.0) * 10 ** (-range_db / 10)
    kept = np.ones(len(powers), bool)
    for first, end in _edges(~sounding).reshape(-1, 2):
        kept[first:end] = end - first < _PAUSE and first > 0 and end < len(powers)
    bounds = _edges(kept) * size
    bounds[bounds == len(powers) * size] = sound.size
    return tuple((bounds / sound.sample_rate).tolist())


def _edges(blocks):
    return np.flatnonzero(np.diff(blocks, prepend=False, append=False))


def _powers(pieces, size):
    """Yields the powers of the blocks of samples that come in pieces."""
    rest = np.zeros(0, "float32")
    yield rest
    for piece in pieces:
        piece = np.concatenate([rest, piece]) if rest.size else piece
        blocks = piece[: piece.size - piece.size % size].reshape(-1, size)
        rest = piece[blocks.size :]
        moved = blocks - blocks.mean(axis=1, keepdims=True)
        yield np.einsum("bn,bn->b", moved, moved)


class Passages(Sound):
    """The `passages` of a `Sound`, one after the other; that one keeps the samples."""

    def __init__(self, sound, kept):
        bounds = np.round(np.reshape(kept, (-1, 2)) * sound.sample_rate).astype(int)
        self.sample_rate, self.notes = sound.sample_rate, []
        self.size = int(np.diff(np.minimum(bounds, sound.size)).sum())
        self._whole, self._bounds = sound, bounds

    def __del__(self):
        """Has no file to close."""

    def __iter__(self):
        """See `Sound`."""
        place = 0
        for piece in self._whole:
            bounds = np.clip(self._bounds - place, 0, piece.size)
            kept = [piece[first:end] for first, end in bounds]
            yield np.concatenate([piece[:0], *kept]) if len(kept) != 1 else kept[0]
            place += piece.size


def seconds(kept):
    """Seconds of sound in `passages`."""
    return float(np.sum(np.diff(np.reshape(kept, (-1, 2)))))


def song_seconds(kept, times):
    """Where in a song, of these `passages`, moments of its sound lie; all seconds."""
    bounds = np.reshape(kept, (-1, 2))
    begins = np.cumsum([0.0, *np.diff(bounds)[:-1, 0]])
    # A microsecond: seconds are rounded.
    number = np.searchsorted(begins, np.asarray(times) + 1e-6, side="right") - 1
    return bounds[number, 0] + np.asarray(times) - begins[number]


# === In a graph ===


def cut_in_graph(waveform, lengths, sample_rate, range_db):
    """The same for a batch of songs: `passages`, and what `cut` leaves of them.

    Args:
        waveform: Float32 tensor `(songs, samples)`, finite; what follows a song is
            zero.
        lengths: Int32 tensor `(songs,)`, samples of each.

    Returns:
        Float32 tensor `(songs, samples)`, each song's sound and then its silence; int32
        `(songs,)`, samples of sound; and int32 `(songs, blocks)`, the blocks of the
        song in their new order.
    """
    import tensorflow as tf

    size = block_size(sample_rate)
    count = tf.maximum(1, -(-tf.shape(waveform)[1] // size))
    padding = [[0, 0], [0, count * size - tf.shape(waveform)[1]]]
    blocks = tf.reshape(tf.pad(waveform, padding), (-1, count, size))
    whole = lengths // size
    inside = tf.sequence_mask(whole, count)
    moved = blocks - tf.reduce_mean(blocks, axis=2, keepdims=True)
    powers = tf.where(inside, tf.einsum("sbn,sbn->sb", moved, moved), 0.0)
    loudest = tf.reduce_max(powers, axis=1, keepdims=True)
    sounding = tf.cast(powers > loudest * 10 ** (-range_db / 10), tf.int32)
    # Blocks at which a pause may begin, and then all blocks of these pauses.
    silent = tf.pad(1 - sounding, [[0, 0], [0, _PAUSE - 1]])
    begins = tf.cast(_window_sums(silent, _PAUSE) == _PAUSE, tf.int32)
    pauses = _window_sums(tf.pad(begins, [[0, 0], [_PAUSE - 1, 0]]), _PAUSE)
    before = tf.cumsum(sounding, axis=1)
    after = tf.cumsum(sounding, axis=1, reverse=True)
    kept = (pauses == 0) & (before > 0) & (after > 0) & inside
    left = size * tf.math.count_nonzero(kept, axis=1, dtype=tf.int32)
    # The rest behind the last whole block.
    behind = tf.pad(kept, [[0, 0], [1, 0]])[:, :-1] & (
        tf.range(count) == whole[:, None]
    )
    left += tf.where(tf.reduce_any(behind, axis=1), lengths % size, 0)
    kept |= behind
    order = tf.argsort(tf.cast(~kept, tf.int32), axis=1, stable=True)
    sound = tf.reshape(
        tf.gather(blocks, order, axis=1, batch_dims=1), (-1, count * size)
    )
    return sound, left, order


def _window_sums(rows, size):
    """`(rows, blocks)` -> `(rows, blocks - size + 1)`, sums over windows."""
    import tensorflow as tf

    sums = tf.pad(tf.cumsum(rows, axis=1), [[0, 0], [1, 0]])
    return sums[:, size:] - sums[:, :-size]
