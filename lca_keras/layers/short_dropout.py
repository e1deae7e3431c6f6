"""Dropout that draws 16 random bits for a value instead of 32."""

import keras


@keras.saving.register_keras_serializable(package="lca_keras")
class ShortDropout(keras.layers.Dropout):
    """`keras.layers.Dropout` with half the random numbers.

    On the large maps of the first blocks, drawing a float for every value is the most
    expensive part of a training step that is not a convolution. Sixteen bits decide
    as well: the rate is rounded to a multiple of 1 / 65536, and the scaling is that
    of the rounded rate. On other backends, and where the last dimension is odd, the
    inherited layer runs. Arguments are those of `keras.layers.Dropout`, without
    `noise_shape`.
    """

    def call(self, inputs, training=False):
        """Drops values; see the class."""
        channels = inputs.shape[-1]
        native = keras.backend.backend() == "tensorflow" and channels % 2 == 0
        if not training or self.rate == 0 or not native:
            return super().call(inputs, training=training)
        import tensorflow as tf  # Random bits, which `keras.random` does not offer.

        threshold = round(self.rate * 65536)
        seed = tf.cast(self.seed_generator.next(), tf.int64)
        shape = tf.shape(inputs)
        words = tf.random.stateless_uniform(
            tf.concat([shape[:-1], [channels // 2]], axis=0),
            seed,
            minval=None,
            maxval=None,
            dtype=tf.int32,
        )
        bits = tf.reshape(tf.bitcast(words, tf.uint16), shape)
        scale = tf.constant(65536 / (65536 - threshold), inputs.dtype)
        keep = bits >= tf.constant(threshold, tf.uint16)
        return tf.where(keep, inputs * scale, tf.zeros((), inputs.dtype))
