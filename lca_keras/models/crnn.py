"""CRNN, the baseline without attention."""

import keras

from lca_keras.models.network import SingerNetwork, conv_trunk

POOL_SIZES = ((2, 2), (4, 2), (4, 2), (4, 2))


@keras.saving.register_keras_serializable(package="lca_keras")
class CRNN(SingerNetwork):
    """Convolutional recurrent network of Nasrullah & Zhao.

    394,516 parameters for 20 artists and clips of any length.

    Args:
        num_classes: Int, number of artists.
        clip_frames: Int, frames of a clip; at least 16.
        mel_bins: Int, mel bands; at least 128.
        filters: Channels of the four blocks.
        gru_units: Int, width of both recurrent layers.
        block_dropout: Float, dropout rate after every block.
        head_dropout: Float, dropout rate before the classifier.
        temperature: Float, softmax temperature.
        dtype: Dtype policy of the encoder's layers; default is Keras's global one.
            Input normalisation, recurrent layers and classifier stay in float32.
        **kwargs: As for `keras.Model`.

    Call arguments:
        inputs: Float tensor, `(batch, mel_bins, clip_frames, 1)`, decibels.

    Returns:
        Probabilities, `(batch, num_classes)`, float32.

    References:
        - Nasrullah & Zhao, 2019, https://arxiv.org/abs/1901.04555
    """

    def __init__(
        self,
        num_classes,
        clip_frames=157,
        mel_bins=128,
        filters=(64, 128, 128, 128),
        gru_units=32,
        block_dropout=0.1,
        head_dropout=0.3,
        temperature=1.0,
        dtype=None,
        **kwargs,
    ):
        policy = keras.dtype_policies.get(dtype or keras.config.dtype_policy())
        inputs = keras.Input((mel_bins, clip_frames, 1), name="mel_spectrogram")
        maps = conv_trunk(inputs, filters, POOL_SIZES, block_dropout, policy)[-1]
        super().__init__(
            keras.Model(inputs, {"maps": maps}, name="encoder"),
            num_classes,
            gru_units,
            head_dropout,
            temperature,
            regularize=False,
            **kwargs,
        )
        self._config = {
            "num_classes": num_classes,
            "clip_frames": clip_frames,
            "mel_bins": mel_bins,
            "filters": tuple(filters),
            "gru_units": gru_units,
            "block_dropout": block_dropout,
            "head_dropout": head_dropout,
            "temperature": temperature,
            "dtype": policy.name,
        }

    def get_config(self):
        """Returns the constructor's arguments."""
        return {**self._config, "name": self.name}
