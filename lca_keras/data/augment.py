"""Augmentation of training clips, inside of tf.data: remixing and SpecAugment.

What is drawn depends on seeds alone, those of an epoch and a step, so that a resumed
run draws what the uninterrupted one would have drawn.

References:
    - Hsieh et al., 2020, https://arxiv.org/abs/2002.06817 ("shuffle and remix")
    - Park et al., 2019, https://arxiv.org/abs/1904.08779 (SpecAugment)
"""

import functools
import importlib.util
import math
import warnings

from lca_keras.base.errors import UserError

# Masks to draw from; there are some 2,500 different ones of up to 20 of 128 bands.
_MASKS = 4096
_LN_10 = math.log(10)


def remix(clips, voices, others, seed, augment, front_end):
    """Puts the vocals of clips over the accompaniment of others.

    Powers are added, as those of sounds that know nothing of each other do on average.
    Like the features of a song, a clip reaches as far below the loudest of the song
    that it might be of: of the remixed clip, or of either song's stem. A share of
    clips, as `augment` says, stays as it was.

    Args:
        clips: Float32 tensor `(batch, …)`, clips of the front end's first stream.
        voices: Dict with `"vocals"` of the same shape, as
            `lca_keras.features.spectrogram.stem_levels` gives them, and `"vocals_peak"`
            `(batch,)`, their maximum over the song.
        others: Dict with `"accompaniment"` and `"accompaniment_peak"`, the same of the
            other clips.
        seed: Int tensor `(2,)`.
        augment: `lca_keras.base.config.AugmentConfig`.
        front_end: `lca_keras.features.front_end.FrontEnd` that mixes powers.
    """
    import tensorflow as tf

    count = tf.shape(clips)[0]
    chosen, level = tf.unstack(tf.random.stateless_uniform((2, count), seed))
    gain = augment.remix_gain_db * (2 * level - 1)
    each = (-1, *[1] * (len(clips.shape) - 1))

    def power(levels):
        return tf.exp(levels * (_LN_10 / 10))

    vocals = voices["vocals"] + tf.reshape(gain, each)
    mixed = power(vocals) + power(others["accompaniment"])
    loudest = tf.reduce_max(
        [
            tf.reduce_max(mixed, axis=tuple(range(1, len(mixed.shape)))),
            power(voices["vocals_peak"] + gain),
            power(others["accompaniment_peak"]),
        ],
        axis=0,
    )
    kept = tf.reshape(chosen >= augment.remix_share, each)
    return tf.where(kept, clips, front_end.mixed_clips(mixed, loudest))


class SpecAugment:
    """Masks a range of mel bands and a range of frames of every clip.

    The masks are tensorflow-io's. Its operators draw from TensorFlow's own stream of
    random numbers, which cannot be begun anew with an epoch; so a great many masks are
    drawn once, and the seeds of an epoch draw from these. Masked cells get the clip's
    mean, which is what the paper's zero was in its normalised spectrograms.
    """

    def __init__(self, augment, shape):
        with warnings.catch_warnings():
            # Of native libraries that do not load beside this TensorFlow and that
            # nothing here needs.
            warnings.simplefilter("ignore")
            from tensorflow_io import audio
        # `shape` is that of a clip, bands and frames first.
        self._bands = _pool(audio.freq_mask, (1, shape[0]), augment.mask_bands)
        self._frames = _pool(audio.time_mask, (shape[1], 1), augment.mask_frames)

    def __call__(self, clips, seed):
        """Masks `(batch, bands, frames, channels)`; `seed` is an int tensor `(2,)`."""
        import tensorflow as tf

        drawn = tf.random.stateless_uniform(
            (2, tf.shape(clips)[0]), seed, 0, _MASKS, tf.int32
        )
        kept = tf.gather(self._bands, drawn[0])[:, :, None, None]
        kept &= tf.gather(self._frames, drawn[1])[:, None, :, None]
        means = tf.reduce_mean(clips, axis=(1, 2), keepdims=True)
        return tf.where(kept, clips, means)


def check_installed(augment):
    """Raises a `UserError` for SpecAugment without tensorflow-io."""
    if "specaugment" in augment.kinds and not importlib.util.find_spec("tensorflow_io"):
        raise UserError(
            "--augment specaugment needs tensorflow-io: pip install "
            "'lca-keras[specaugment]'"
        )


@functools.lru_cache
def _pool(operator, shape, widest):
    """Bool array `(_MASKS, size)`, false where a mask of `operator` is."""
    import tensorflow as tf

    @tf.function
    def draw():
        # Of this function's graph, and of nothing else in the program.
        tf.random.set_seed(1)
        ones = tf.ones(shape, tf.int32)
        # One after the other: in parallel they would draw in any order.
        return tf.map_fn(
            lambda _: operator(ones, widest + 1),
            tf.range(_MASKS),
            fn_output_signature=tf.int32,
            parallel_iterations=1,
        )

    with tf.device("CPU"):
        # Called by itself it would warn after some widths that it is traced so often.
        masks = draw.get_concrete_function()()
    return masks.numpy().reshape(_MASKS, -1).astype(bool)
