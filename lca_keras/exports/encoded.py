"""Encoded audio to samples, inside a graph: what a server decodes for its clients."""

import tensorflow as tf

from lca_keras.audio.decode import CANCELLED

# Where soxr's high quality filter lets half pass, relative to the end of the lower
# rate's band, and the standard deviation of its step down: measured, to 0.02.
_HALF, _STEP = 0.9565, 0.0112
# Samples a second of a recording.
_LOWEST_RATE, _HIGHEST_RATE = 2000, 768_000
# Input samples of a block that is filtered at a time, and what comes in at its edges,
# where a block is taken for periodic.
_BLOCK, _MARGIN = 1 << 17, 4096


def attempt(function, element, otherwise):
    """What a function makes of a tensor, or something else where it fails.

    An operation that fails would take the whole request down, and those that a server
    has put together with it. `function` gives a tuple of tensors; `otherwise` is one,
    of the same types and ranks.
    """
    found = tf.data.Dataset.from_tensors(element).map(function).ignore_errors()
    found = found.concatenate(tf.data.Dataset.from_tensors(otherwise))
    return found.take(1).get_single_element()


def decode_wav(content, sample_rate):
    """Decodes a WAV file of 16-bit samples, a scalar string; empty if it is none.

    As `lca_keras.audio.decode.decode`: channels are averaged, but of channels that
    cancel out only the first is taken; then resampled.
    """

    def read(content):
        return tuple(tf.audio.decode_wav(content))

    channels, rate = attempt(read, content, (tf.zeros((0, 1)), sample_rate))
    mixed = tf.reduce_mean(channels, axis=1)
    single = tf.reduce_mean(tf.reduce_sum(tf.square(channels), axis=0))
    cancelled = tf.reduce_sum(tf.square(mixed)) < CANCELLED * single
    mixed = tf.cond(cancelled, lambda: channels[:, 0], lambda: mixed)
    # Of a header that lies about its rate nothing is made, and no memory taken.
    known = (rate >= _LOWEST_RATE) & (rate <= _HIGHEST_RATE)
    mixed = mixed[: tf.where(known, tf.size(mixed), 0)]
    return resample(mixed, tf.where(known, rate, sample_rate), sample_rate)


def resample(samples, rate, new_rate):
    """Resamples float32 `(samples,)` by Fourier transforms, block by block.

    Its length is `ceil(samples * new_rate / rate)`; `rate` is a scalar int32 tensor.
    """
    done = tf.equal(rate, new_rate) | tf.equal(tf.size(samples), 0)
    return tf.cond(done, lambda: samples, lambda: _resampled(samples, rate, new_rate))


def _resampled(samples, rate, new_rate):
    # As many samples become whole ones: `down` of the old rate, `up` of the new.
    common = tf.experimental.numpy.gcd(rate, new_rate)
    down, up = rate // common, new_rate // common
    margin, kept = -(-_MARGIN // down), -(-_BLOCK // down)
    length = kept + 2 * margin
    count = tf.size(samples)
    blocks = -(-count // (kept * down))
    behind = blocks * kept * down - count + margin * down
    padded = tf.pad(samples, [[margin * down, behind]])
    low = tf.minimum(length * down, length * up) // 2 + 1
    # Hertz of the spectrum's bins, relative to the end of the lower rate's band.
    place = 2 * tf.cast(tf.range(low), tf.float32) / tf.cast(length, tf.float32)
    place /= tf.cast(tf.minimum(up, down), tf.float32)
    passed = tf.math.erfc((place - _HALF) / (2**0.5 * _STEP)) / 2
    passed = tf.cast(passed, tf.complex64)
    gain = tf.cast(up, tf.float32) / tf.cast(down, tf.float32)

    def block(number):
        start = number * kept * down
        spectrum = tf.signal.rfft(padded[start : start + length * down])
        spectrum = spectrum[:low] * passed
        spectrum = tf.pad(spectrum, [[0, length * up // 2 + 1 - low]])
        samples = gain * tf.signal.irfft(spectrum, [length * up])
        return samples[margin * up : (margin + kept) * up]

    found = tf.map_fn(
        block,
        tf.range(blocks),
        fn_output_signature=tf.TensorSpec((None,), tf.float32),
        parallel_iterations=1,
    )
    exact = tf.cast(count, tf.int64) * tf.cast(up, tf.int64)
    return tf.reshape(found, (-1,))[: -(-exact // tf.cast(down, tf.int64))]
