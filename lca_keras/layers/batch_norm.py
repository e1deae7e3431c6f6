"""Batch normalisation that uses the framework's fused kernel where there is one."""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="lca_keras")
class FusedBatchNormalization(keras.layers.BatchNormalization):
    """`keras.layers.BatchNormalization` of 4D maps, computed in one kernel.

    Keras 3 composes the layer from a dozen TensorFlow operations. On large maps
    these read and write memory again and again: the fused kernel makes a training
    step of CRNN_FGNL about a fifth faster on a CPU, with the same outputs to
    rounding (`benchmarks/train_step.py`). It also reads bfloat16 maps while keeping
    the statistics in float32. On other backends the inherited layer runs, and where a
    batch is spread over replicas, whose statistics are taken together.

    Arguments are those of `keras.layers.BatchNormalization`; it always scales and
    centres, or raises a ValueError.
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.input_spec = keras.layers.InputSpec(ndim=4)
        if not (self.scale and self.center):
            raise ValueError(
                "`FusedBatchNormalization` always scales and centres. "
                f"Received: scale={self.scale}, center={self.center}"
            )

    def call(self, inputs, training=None):
        """Normalises `inputs`; see the class."""
        if keras.backend.backend() != "tensorflow":
            return super().call(inputs, training=training)
        import tensorflow as tf  # The one kernel that `keras.ops` does not offer.

        context = tf.distribute.get_replica_context()
        if training and self.trainable and context.num_replicas_in_sync > 1:
            # The kernel knows its replica's part of the batch only.
            self.synchronized = True
            return super().call(inputs, training=training)
        # The kernel wants the normalised axis last.
        inputs = ops.moveaxis(inputs, self.axis, -1)
        training = bool(training) and self.trainable
        empty = tf.zeros([0], "float32")
        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=_float32(self.gamma),
            offset=_float32(self.beta),
            mean=empty if training else _float32(self.moving_mean),
            variance=empty if training else _float32(self.moving_variance),
            epsilon=self.epsilon,
            is_training=training,
        )
        if training:
            # The kernel reports the unbiased variance, Keras averages the biased.
            count = ops.cast(ops.size(inputs) // inputs.shape[-1], "float32")
            variance = variance * (count - 1) / count
            keep = self.momentum
            self.moving_mean.assign(self.moving_mean * keep + mean * (1 - keep))
            self.moving_variance.assign(
                self.moving_variance * keep + variance * (1 - keep)
            )
        return ops.moveaxis(outputs, -1, self.axis)


def _float32(variable):
    """The variable's value in full precision, also inside an autocast scope."""
    return ops.convert_to_tensor(variable.value, dtype="float32")
