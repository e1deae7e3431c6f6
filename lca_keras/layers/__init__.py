"""Keras layers; they use `keras.ops` only and run on every Keras backend.

Imports `base`; of use alone to whoever trains in a loop of their own.
"""

from lca_keras.layers.batch_norm import FusedBatchNormalization
from lca_keras.layers.calibrated_softmax import CalibratedSoftmax
from lca_keras.layers.conv_block import ConvBlock
from lca_keras.layers.fgnl import FGNL
from lca_keras.layers.gaussian_filter import GaussianFilter2D
from lca_keras.layers.mose import MoSE
from lca_keras.layers.short_dropout import ShortDropout

__all__ = [
    "FGNL",
    "CalibratedSoftmax",
    "ConvBlock",
    "FusedBatchNormalization",
    "GaussianFilter2D",
    "MoSE",
    "ShortDropout",
]
