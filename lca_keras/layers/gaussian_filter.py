"""Fixed Gaussian filter for time-frequency feature maps."""

import keras
import numpy as np
from keras import ops


@keras.saving.register_keras_serializable(package="lca_keras")
class GaussianFilter2D(keras.layers.Layer):
    """Smooths every channel with one fixed Gaussian kernel.

    The operator `G` of Kuo et al. (Eqs. 2-4), with `r = kernel_size // 2`:

        k[u, v] = exp(-(u^2 + v^2) / (2 sigma^2)) / Z,  -r <= u, v <= r

    `Z` makes the taps sum to one. Borders are zero-padded.

    Args:
        kernel_size: Odd int, kernel side, in mel bins and in frames.
        sigma: Positive float, standard deviation, same units.

    Call arguments:
        inputs: Float tensor, `(batch, mel_bins, frames, channels)`.

    Returns:
        Tensor with the shape of `inputs`, in the layer's compute dtype.

    Raises:
        ValueError: If `kernel_size` is not odd or `sigma` not positive.

    References:
        - Kuo et al., 2021, https://ojs.aaai.org/index.php/AAAI/article/view/17000
    """

    def __init__(self, kernel_size=5, sigma=0.707, **kwargs):
        super().__init__(**kwargs)
        if kernel_size < 1 or kernel_size % 2 == 0 or sigma <= 0:
            raise ValueError(
                "`kernel_size` must be odd and `sigma` positive. "
                f"Received: kernel_size={kernel_size}, sigma={sigma}"
            )
        self.kernel_size = kernel_size
        self.sigma = sigma
        self.input_spec = keras.layers.InputSpec(ndim=4)

    def build(self, input_shape):
        """Creates the fixed kernel, one copy a channel."""
        offsets = np.arange(self.kernel_size) - self.kernel_size // 2
        taps = np.exp(-(offsets**2) / (2 * self.sigma**2))
        kernel = np.outer(taps, taps) / taps.sum() ** 2
        # (size, size) -> (size, size, channels, 1), as depthwise_conv asks.
        kernel = np.stack([kernel[..., None]] * input_shape[-1], axis=2)
        # A weight, not a constant: the published parameter count includes it.
        self.kernel = self.add_weight(
            name="kernel",
            shape=kernel.shape,
            initializer=keras.initializers.Constant(kernel),
            trainable=False,
        )

    def call(self, inputs):
        """Filters `inputs`; see the class."""
        return ops.depthwise_conv(
            inputs, self.kernel, padding="same", data_format="channels_last"
        )

    def compute_output_shape(self, input_shape):
        """Same as the input's."""
        return input_shape

    def get_config(self):
        """Returns the constructor's arguments."""
        config = super().get_config()
        return {**config, "kernel_size": self.kernel_size, "sigma": self.sigma}
