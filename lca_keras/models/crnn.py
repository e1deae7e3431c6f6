"""The papers' networks: CRNN, CRNNM, and CRNN_FGNL, which LCA starts from."""

import keras
from keras import layers

from lca_keras.layers import FGNL, MoSE
from lca_keras.models.network import SingerNetwork, conv_trunk

_POOL_SIZES = ((2, 2), (4, 2), (4, 2), (4, 2))
_FGNL_POOL_SIZES = (None, (2, 2), (2, 2), (2, 2))


@keras.saving.register_keras_serializable(package="lca_keras")
class CRNN(SingerNetwork):
    """Convolutional recurrent network of Nasrullah & Zhao, without attention.

    394,516 parameters for 20 artists and clips of any length. `mel_bins` is at least
    128. All arguments are those of `SingerNetwork`.

    Call arguments:
        inputs: Float tensor, `(batch, mel_bins, clip_frames, 1)`, decibels.

    References:
        - Nasrullah & Zhao, 2019, https://arxiv.org/abs/1901.04555
    """

    @staticmethod
    def build_encoder(shape, filters, dropout, dtype):
        """Returns one trunk."""
        inputs = keras.Input(shape, name="mel_spectrogram")
        maps = conv_trunk(inputs, filters, _POOL_SIZES, dropout, dtype)[-1]
        return keras.Model(inputs, {"maps": maps}, name="encoder")


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

    References:
        - Hsieh et al., 2020, https://arxiv.org/abs/2002.06817
    """

    trunk_ends = ("block4", "melody_block4")

    @staticmethod
    def build_encoder(shape, filters, dropout, dtype):
        """Returns two trunks side by side."""
        inputs = {n: keras.Input(shape, name=n) for n in ("mel_spectrogram", "melody")}
        maps = [
            conv_trunk(tensor, filters, _POOL_SIZES, dropout, dtype, prefix)[-1]
            for tensor, prefix in zip(inputs.values(), ("", "melody_"), strict=True)
        ]
        maps = layers.Concatenate(axis=-1, name="both_trunks")(maps)
        return keras.Model(inputs, {"maps": maps}, name="encoder")

    def maps_of(self, convolved, beside):
        """Both trunks' maps."""
        return keras.ops.concatenate([convolved, *beside], axis=-1)


@keras.saving.register_keras_serializable(package="lca_keras")
class CRNNFGNL(SingerNetwork):
    """Convolutional recurrent network with fully generalized non-local attention.

    584,141 parameters for 20 artists and 157 frames. It is a `Backbone`: the encoder
    yields `"features"` (output of block 4), `"attended"` (maps R), `"attention"` (A)
    and `"maps"` (FGNL's output Z).

    Args:
        num_classes: Int, number of artists.
        reduction: Int, the attention's C' is `filters[3] // reduction`.
        normalize: `"keys"` or `"queries"`; see `lca_keras.layers.FGNL`.
        **kwargs: As for `SingerNetwork`.

    Call arguments:
        inputs: Float tensor, `(batch, mel_bins, clip_frames, 1)`, decibels.

    References:
        - Kuo et al., 2021, https://ojs.aaai.org/index.php/AAAI/article/view/17000
    """

    own_options = ("reduction", "normalize")
    penalized = True
    trunk_ends = ("block4", "block3")

    def __init__(self, num_classes, *args, reduction=32, normalize="keys", **kwargs):
        own = {"reduction": reduction, "normalize": normalize}
        super().__init__(num_classes, *args, **own, **kwargs)

    @staticmethod
    def build_encoder(shape, filters, dropout, dtype, reduction, normalize):
        """Returns one trunk with FGNL over its last two blocks."""
        inputs = keras.Input(shape, name="mel_spectrogram")
        *_, shallow, features = conv_trunk(
            inputs, filters, _FGNL_POOL_SIZES, dropout, dtype
        )
        fgnl = FGNL(reduction, normalize, dtype=dtype, name="fgnl")
        maps, attended, attention = fgnl([features, shallow], return_attention=True)
        outputs = {
            "features": features,
            "attended": attended,
            "attention": attention,
            "maps": maps,
        }
        return keras.Model(inputs, outputs, name="encoder")

    # === What `LCAModel` asks of a backbone; see `lca_keras.models.backbone` ===

    def new_attention(self, name):
        """Returns another MoSE, untrained."""
        attention = MoSE(self.encoder.get_layer("fgnl").mose_units, name=name)
        attention.build(self.encoder.output["attended"].shape)
        return attention

    def fuse(self, features, attended, attention):
        """Returns Z for another attention."""
        return self.encoder.get_layer("fgnl").fuse(features, attended, attention)

    def map_layers(self):
        """Also `"fgnl"`, what the attention makes of the last convolutions."""

        def attended(inputs):
            return self.encoder(inputs, training=False)["maps"], []

        own = {"fgnl": (attended, lambda maps, beside: maps)}
        return {**super().map_layers(), **own}

    def maps_of(self, convolved, beside):
        """What the attention makes of the last two blocks."""
        return self.encoder.get_layer("fgnl")([convolved, *beside])
