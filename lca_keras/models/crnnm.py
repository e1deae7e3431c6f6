"""CRNNM, the baseline that also hears the melody."""

import keras
from keras import layers

from lca_keras.models.crnn import POOL_SIZES
from lca_keras.models.network import SingerNetwork, conv_trunk


@keras.saving.register_keras_serializable(package="lca_keras")
class CRNNM(SingerNetwork):
    """CRNN with a second trunk for the melody contour, of Hsieh et al.

    The trunks' outputs are concatenated on channels before the recurrent layers.
    778,772 parameters for 20 artists and clips of any length.

    Args:
        num_classes: Int, number of artists.
        clip_frames: Int, frames of a clip; at least 16.
        mel_bins: Int, mel bands; at least 128.
        filters: Channels of the four blocks of each trunk.
        gru_units: Int, width of both recurrent layers.
        block_dropout: Float, dropout rate after every block.
        head_dropout: Float, dropout rate before the classifier.
        temperature: Float, softmax temperature.
        dtype: Dtype policy of the encoder's layers; default is Keras's global one.
            Input normalisation, recurrent layers and classifier stay in float32.
        **kwargs: As for `keras.Model`.

    Call arguments:
        inputs: Dict of two float tensors, `(batch, mel_bins, clip_frames, 1)` each:
            `"mel_spectrogram"` in decibels, and `"melody"`, one-hot over the bands,
            as `lca_keras.audio.melody.contour` gives it.

    Returns:
        Probabilities, `(batch, num_classes)`, float32.

    References:
        - Hsieh et al., 2020, https://arxiv.org/abs/2002.06817
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
        shape = (mel_bins, clip_frames, 1)
        inputs = {
            name: keras.Input(shape, name=name)
            for name in ("mel_spectrogram", "melody")
        }
        maps = [
            conv_trunk(tensor, filters, POOL_SIZES, block_dropout, policy, prefix)[-1]
            for tensor, prefix in zip(inputs.values(), ("", "melody_"), strict=True)
        ]
        maps = layers.Concatenate(axis=-1, name="both_trunks")(maps)
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
