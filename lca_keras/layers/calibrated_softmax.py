"""Softmax with a temperature fitted after training."""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="lca_keras")
class CalibratedSoftmax(keras.layers.Layer):
    """`softmax(logits / temperature)`, in float32.

    The temperature is part of the configuration, not a weight: it is fitted once on
    validation clips (`lca_keras.base.metrics.fit_temperature`) and changes neither the
    ranking of the classes nor the published parameter counts.

    Args:
        temperature: Positive float; 1 is the plain softmax.

    Call arguments:
        inputs: Logits, `(..., classes)`.

    Returns:
        Probabilities with the shape of `inputs`, float32.

    References:
        - Guo et al., 2017, https://arxiv.org/abs/1706.04599
    """

    def __init__(self, temperature=1.0, **kwargs):
        kwargs.setdefault("dtype", "float32")
        super().__init__(**kwargs)
        if not temperature > 0:
            raise ValueError(
                f"`temperature` must be positive. Received: temperature={temperature}"
            )
        self.temperature = float(temperature)

    def call(self, inputs):
        """Returns probabilities; see the class."""
        return ops.softmax(inputs / self.temperature, axis=-1)

    def compute_output_shape(self, input_shape):
        """Same as the input's."""
        return input_shape

    def get_config(self):
        """Returns the constructor's arguments."""
        return {**super().get_config(), "temperature": self.temperature}
