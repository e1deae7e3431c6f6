"""Fully generalized non-local attention (FGNL) over two feature maps."""

import math

import keras
from keras import layers, ops

from lca_keras.layers.gaussian_filter import GaussianFilter2D
from lca_keras.layers.mose import MoSE


@keras.saving.register_keras_serializable(package="lca_keras")
class FGNL(layers.Layer):
    """Non-local attention across positions, layers and channel shifts.

    Every position of the deeper map X4 (N queries) looks at every position of X4
    and of the shallower map X3 (M keys), once for each cyclic shift p of the C'
    reduced channels (G is `GaussianFilter2D`, `[;]` joins positions):

        theta = G(conv(X4)),  phi = [G(conv(X4)); G(conv(X3))],  g likewise
        S_p = softmax( theta . roll(phi, p)^T ),   R_p = S_p g
        A = MoSE(R),   Z = X4 + conv( A_p R_p, channels outer, shifts inner )

    The three steps are public, so that a counterfactual attention can take the
    place of A: `attend` gives R, `mose` gives A, `fuse` gives Z.

    Args:
        reduction: Int, C' is the channels of X4 divided by this; at least 2 must
            remain, since with one shift the attention is the constant 1.
        normalize: `"keys"`, as non-local networks define the softmax, or
            `"queries"`, for weights of the published TensorFlow code. With queries
            every column of S_p sums to one, all shifts have the same mean, and
            MoSE's attention is exactly uniform whatever its weights.
        kernel_size: Odd int, side of G.
        sigma: Float, standard deviation of G, in mel bins and frames.
        mose_units: Int, hidden width of MoSE.

    Call arguments:
        inputs: Pair of float tensors X4 `(batch, mel4, frames4, C)` and X3
            `(batch, mel3, frames3, C3)`.
        return_attention: Bool, whether to return R and A beside Z.

    Returns:
        Z with the shape of X4; with `return_attention` the tuple `(Z, R, A)`, R
        `(batch, C', mel4 * frames4, C')` and A `(batch, C')`.

    Raises:
        ValueError: If C is not a multiple of `reduction`, if C' < 2, or if
            `normalize` is unknown.

    References:
        - Kuo et al., 2021, https://ojs.aaai.org/index.php/AAAI/article/view/17000
    """

    def __init__(
        self,
        reduction=32,
        normalize="keys",
        kernel_size=5,
        sigma=0.707,
        mose_units=16,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if normalize not in ("keys", "queries"):
            raise ValueError(
                "`normalize` must be 'keys' or 'queries'. "
                f"Received: normalize={normalize!r}"
            )
        self.reduction = reduction
        self.normalize = normalize
        self.kernel_size = kernel_size
        self.sigma = sigma
        self.mose_units = mose_units
        self.mose = MoSE(mose_units, dtype=self.dtype_policy, name="mose")

    def build(self, input_shape):
        """Builds the five projections, MoSE and the output convolution."""
        features_shape, shallow_shape = input_shape
        channels = features_shape[-1]
        self.shifts = channels // self.reduction
        if channels % self.reduction or self.shifts < 2:
            raise ValueError(
                "`reduction` must divide the channels of X4 and leave at least 2: "
                "with one shift the attention is the constant 1. "
                f"Received: reduction={self.reduction}, channels={channels}"
            )
        # theta, phi and g have weights of their own on each map.
        self.theta = self._projection("theta", features_shape)
        maps = {"deep": features_shape, "shallow": shallow_shape}
        self.phi = [self._projection(f"phi_{m}", shape) for m, shape in maps.items()]
        self.g = [self._projection(f"g_{m}", shape) for m, shape in maps.items()]
        positions = math.prod(features_shape[1:3])
        self.mose.build((None, self.shifts, positions, self.shifts))
        self.output_conv = layers.Conv2D(
            channels, 1, dtype=self.dtype_policy, name="output_conv"
        )
        self.output_conv.build((*features_shape[:3], self.shifts**2))

    def _projection(self, name, shape):
        """1x1 convolution to C' channels, then G, then positions in one axis."""
        dtype, taps = self.dtype_policy, (self.kernel_size, self.sigma)
        steps = [
            layers.Conv2D(self.shifts, 1, dtype=dtype, name="conv"),
            GaussianFilter2D(*taps, dtype=dtype, name="gaussian"),
            layers.Reshape((-1, self.shifts), dtype=dtype),
        ]
        projection = keras.Sequential(steps, name=name)
        projection.build((None, *shape[1:]))
        return projection

    def attend(self, features, shallow):
        """Returns R, `(batch, shifts, positions of X4, C')`."""
        query = self.theta(features)
        maps = (features, shallow)
        key, value = (
            ops.concatenate([p(x) for p, x in zip(each, maps, strict=True)], axis=1)
            for each in (self.phi, self.g)
        )
        # theta . roll(phi, p) = roll(theta, -p) . phi: rolling the N queries, not
        # the M keys, lets all shifts share one product. (batch, P * N, C')
        queries = ops.concatenate(
            [ops.roll(query, -p, axis=-1) for p in range(self.shifts)], axis=1
        )
        scores = ops.matmul(queries, ops.transpose(key, (0, 2, 1)))
        by_shift = (-1, self.shifts, query.shape[1])
        if self.normalize == "keys":
            weights = ops.softmax(scores, axis=-1)
        else:
            scores = ops.reshape(scores, (*by_shift, key.shape[1]))
            weights = ops.softmax(scores, axis=2)
            weights = ops.reshape(weights, (-1, queries.shape[1], key.shape[1]))
        return ops.reshape(ops.matmul(weights, value), (*by_shift, self.shifts))

    def fuse(self, features, attended, attention):
        """Returns Z from X4, R and an attention `(batch, shifts)`."""
        attention = ops.cast(attention, attended.dtype)[:, :, None, None]
        # (batch, shifts, N, C') -> (batch, N, C', shifts): channels outer.
        weighted = ops.transpose(attended * attention, (0, 2, 3, 1))
        weighted = ops.reshape(
            weighted, (-1, features.shape[1], features.shape[2], self.shifts**2)
        )
        update = self.output_conv(weighted)
        return ops.cast(features, update.dtype) + update

    def call(self, inputs, return_attention=False):
        """Returns Z, or `(Z, R, A)`; see the class."""
        features, shallow = inputs
        attended = self.attend(features, shallow)
        attention = self.mose(attended)
        outputs = self.fuse(features, attended, attention)
        return (outputs, attended, attention) if return_attention else outputs

    def get_config(self):
        """Returns the constructor's arguments."""
        return {
            **super().get_config(),
            "reduction": self.reduction,
            "normalize": self.normalize,
            "kernel_size": self.kernel_size,
            "sigma": self.sigma,
            "mose_units": self.mose_units,
        }
