"""Modified squeeze-and-excitation over the channel shifts of FGNL."""

import keras
from keras import layers, ops


@keras.saving.register_keras_serializable(package="lca_keras")
class MoSE(layers.Layer):
    """Weighs the shifts of a fully generalized non-local map against each other.

        z_p = mean of R_p over positions and channels
        A   = softmax over p of  w2 . relu(w1 z_p + b1) + b2

    One two-layer perceptron, 1 -> `units` -> 1, is shared by all shifts, so the
    layer has `3 * units + 1` weights whatever the number of shifts.

    Args:
        units: Int, width of the hidden layer.

    Call arguments:
        inputs: Attended maps R, `(batch, shifts, positions, channels)`.

    Returns:
        Attention A, `(batch, shifts)`, float32, rows sum to one.

    References:
        - Kuo et al., 2021, https://ojs.aaai.org/index.php/AAAI/article/view/17000
    """

    def __init__(self, units=16, **kwargs):
        super().__init__(**kwargs)
        if units < 1:
            raise ValueError(f"`units` must be positive. Received: units={units}")
        self.units = units
        self.input_spec = layers.InputSpec(ndim=4)
        # A handful of numbers a clip: full precision costs nothing, and the
        # attention distance of LCA is a small difference of these.
        self.excite = layers.Dense(units, "relu", dtype="float32", name="excite")
        self.score = layers.Dense(1, dtype="float32", name="score")

    def build(self, input_shape):
        """Builds the shared perceptron."""
        self.excite.build((input_shape[0], input_shape[1], 1))
        self.score.build((input_shape[0], input_shape[1], self.units))

    def call(self, inputs):
        """Returns the attention over shifts; see the class."""
        # (batch, shifts, positions, channels) -> (batch, shifts, 1)
        squeezed = ops.mean(ops.cast(inputs, "float32"), axis=(2, 3))[..., None]
        scores = self.score(self.excite(squeezed))
        return ops.softmax(scores[..., 0], axis=-1)

    def get_config(self):
        """Returns the constructor's arguments."""
        return {**super().get_config(), "units": self.units}
