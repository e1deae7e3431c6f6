"""CRNN, the baseline without attention."""

import keras

from lca_keras.models.network import SingerNetwork, conv_trunk

POOL_SIZES = ((2, 2), (4, 2), (4, 2), (4, 2))


@keras.saving.register_keras_serializable(package="lca_keras")
class CRNN(SingerNetwork):
    """Convolutional recurrent network of Nasrullah & Zhao.

    394,516 parameters for 20 artists and clips of any length. `mel_bins` is at least
    128. All arguments are those of `SingerNetwork`.

    Call arguments:
        inputs: Float tensor, `(batch, mel_bins, clip_frames, 1)`, decibels.

    Returns:
        Probabilities, `(batch, num_classes)`, float32.

    References:
        - Nasrullah & Zhao, 2019, https://arxiv.org/abs/1901.04555
    """

    @staticmethod
    def build_encoder(shape, filters, dropout, dtype):
        """Returns one trunk."""
        inputs = keras.Input(shape, name="mel_spectrogram")
        maps = conv_trunk(inputs, filters, POOL_SIZES, dropout, dtype)[-1]
        return keras.Model(inputs, {"maps": maps}, name="encoder")
