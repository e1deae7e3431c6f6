"""CRNNM, the baseline that also hears the melody."""

import keras
from keras import layers

from lca_keras.models.crnn import POOL_SIZES
from lca_keras.models.network import SingerNetwork, conv_trunk


@keras.saving.register_keras_serializable(package="lca_keras")
class CRNNM(SingerNetwork):
    """CRNN with a second trunk for the melody contour, of Hsieh et al.

    The trunks' outputs are concatenated on channels before the recurrent layers.
    778,772 parameters for 20 artists and clips of any length. `mel_bins` is at least
    128. All arguments are those of `SingerNetwork`.

    Call arguments:
        inputs: Dict of two float tensors, `(batch, mel_bins, clip_frames, 1)` each:
            `"mel_spectrogram"` in decibels, and `"melody"`, one-hot over the bands,
            as `lca_keras.features.melody.contour` gives it.

    Returns:
        Probabilities, `(batch, num_classes)`, float32.

    References:
        - Hsieh et al., 2020, https://arxiv.org/abs/2002.06817
    """

    @staticmethod
    def build_encoder(shape, filters, dropout, dtype):
        """Returns two trunks side by side."""
        inputs = {
            name: keras.Input(shape, name=name)
            for name in ("mel_spectrogram", "melody")
        }
        maps = [
            conv_trunk(tensor, filters, POOL_SIZES, dropout, dtype, prefix)[-1]
            for tensor, prefix in zip(inputs.values(), ("", "melody_"), strict=True)
        ]
        maps = layers.Concatenate(axis=-1, name="both_trunks")(maps)
        return keras.Model(inputs, {"maps": maps}, name="encoder")

    def trunk_ends(self):
        """The last convolutions of both trunks."""
        names = ("block4", "melody_block4")
        return [self.encoder.get_layer(name).output for name in names]

    def maps_of(self, convolved, beside):
        """Both trunks' maps."""
        return keras.ops.concatenate([convolved, *beside], axis=-1)
