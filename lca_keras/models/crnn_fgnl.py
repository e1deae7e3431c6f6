"""CRNN_FGNL, the base network of learnable counterfactual attention."""

import keras

from lca_keras.layers import FGNL, MoSE
from lca_keras.models.network import SingerNetwork, conv_trunk

_POOL_SIZES = (None, (2, 2), (2, 2), (2, 2))


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

    Returns:
        Probabilities, `(batch, num_classes)`, float32.

    References:
        - Kuo et al., 2021, https://ojs.aaai.org/index.php/AAAI/article/view/17000
    """

    own_options = ("reduction", "normalize")
    penalized = True

    def __init__(self, num_classes, *args, reduction=32, normalize="keys", **kwargs):
        super().__init__(
            num_classes, *args, reduction=reduction, normalize=normalize, **kwargs
        )
        self.reduction = reduction
        self.normalize = normalize

    @staticmethod
    def build_encoder(shape, filters, dropout, dtype, reduction, normalize):
        """Returns one trunk with FGNL over its last two blocks."""
        inputs = keras.Input(shape, name="mel_spectrogram")
        *_, shallow, features = conv_trunk(inputs, filters, _POOL_SIZES, dropout, dtype)
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
        fgnl = self.encoder.get_layer("fgnl")
        attention = MoSE(fgnl.mose_units, name=name)
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

    def trunk_ends(self):
        """The last two blocks."""
        names = ("block4", "block3")
        return [self.encoder.get_layer(name).output for name in names]

    def maps_of(self, convolved, beside):
        """What the attention makes of them."""
        return self.encoder.get_layer("fgnl")([convolved, *beside])

    def get_config(self):
        """Returns the constructor's arguments."""
        config = super().get_config()
        config.update({"reduction": self.reduction, "normalize": self.normalize})
        return config
