"""The convolution block that all networks of the project are made of."""

import keras
from keras import layers

from lca_keras.layers.batch_norm import FusedBatchNormalization
from lca_keras.layers.short_dropout import ShortDropout


@keras.saving.register_keras_serializable(package="lca_keras")
class ConvBlock(layers.Layer):
    """3x3 convolution, ELU, batch normalisation, optional max-pooling, dropout.

    Args:
        filters: Int, output channels.
        pool_size: `None`, or a pair `(mel_bins, frames)` to pool over.
        dropout: Float in [0, 1), dropout rate after pooling.

    Call arguments:
        inputs: Float tensor, `(batch, mel_bins, frames, channels)`.

    Returns:
        Tensor `(batch, mel_bins // pool, frames // pool, filters)`.

    References:
        - Nasrullah & Zhao, 2019, https://arxiv.org/abs/1901.04555
    """

    def __init__(self, filters, pool_size=None, dropout=0.1, **kwargs):
        super().__init__(**kwargs)
        self.filters = filters
        self.pool_size = None if pool_size is None else tuple(pool_size)
        self.dropout = dropout
        dtype = self.dtype_policy
        self.conv = layers.Conv2D(filters, 3, padding="same", dtype=dtype, name="conv")
        self.activation = layers.ELU(dtype=dtype, name="elu")
        self.norm = FusedBatchNormalization(dtype=dtype, name="norm")
        self.pool = None
        if self.pool_size is not None:
            self.pool = layers.MaxPooling2D(self.pool_size, dtype=dtype, name="pool")
        self.drop = ShortDropout(dropout, dtype=dtype, name="dropout")

    def build(self, input_shape):
        """Builds convolution and normalisation."""
        self.conv.build(input_shape)
        self.norm.build(self.conv.compute_output_shape(input_shape))

    def call(self, inputs, training=None):
        """Applies the block; see the class."""
        x = self.activation(self.conv(inputs))
        x = self.norm(x, training=training)
        if self.pool is not None:
            x = self.pool(x)
        return self.drop(x, training=training)

    def compute_output_shape(self, input_shape):
        """`(batch, mel_bins, frames, filters)` after pooling."""
        shape = self.conv.compute_output_shape(input_shape)
        return shape if self.pool is None else self.pool.compute_output_shape(shape)

    def get_config(self):
        """Returns the constructor's arguments."""
        return {
            **super().get_config(),
            "filters": self.filters,
            "pool_size": self.pool_size,
            "dropout": self.dropout,
        }
