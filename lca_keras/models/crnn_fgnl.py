"""CRNN_FGNL, the base network of learnable counterfactual attention."""

import keras

from lca_keras.layers import FGNL
from lca_keras.models.network import SingerNetwork, conv_trunk

_POOL_SIZES = (None, (2, 2), (2, 2), (2, 2))


@keras.saving.register_keras_serializable(package="lca_keras")
class CRNNFGNL(SingerNetwork):
    """Convolutional recurrent network with fully generalized non-local attention.

    584,141 parameters for 20 artists and 157 frames. The encoder yields what
    counterfactual training asks of a backbone: `"features"` (output of block 4),
    `"attended"` (maps R), `"attention"` (A) and `"maps"` (FGNL's output Z), and
    `fuse` puts another attention in A's place.

    Args:
        num_classes: Int, number of artists.
        clip_frames: Int, frames of a clip; 94, 157 or 313 in the papers.
        mel_bins: Int, mel bands.
        filters: Channels of the four blocks.
        reduction: Int, the attention's C' is `filters[3] // reduction`.
        normalize: `"keys"` or `"queries"`; see `lca_keras.layers.FGNL`.
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
        - Kuo et al., 2021, https://ojs.aaai.org/index.php/AAAI/article/view/17000
    """

    def __init__(
        self,
        num_classes,
        clip_frames=157,
        mel_bins=128,
        filters=(64, 128, 128, 128),
        reduction=32,
        normalize="keys",
        gru_units=32,
        block_dropout=0.1,
        head_dropout=0.3,
        temperature=1.0,
        dtype=None,
        **kwargs,
    ):
        policy = keras.dtype_policies.get(dtype or keras.config.dtype_policy())
        inputs = keras.Input((mel_bins, clip_frames, 1), name="mel_spectrogram")
        *_, shallow, features = conv_trunk(
            inputs, filters, _POOL_SIZES, block_dropout, policy
        )
        fgnl = FGNL(reduction, normalize, dtype=policy, name="fgnl")
        maps, attended, attention = fgnl([features, shallow], return_attention=True)
        encoder = keras.Model(
            inputs,
            {
                "features": features,
                "attended": attended,
                "attention": attention,
                "maps": maps,
            },
            name="encoder",
        )
        super().__init__(
            encoder,
            num_classes,
            gru_units,
            head_dropout,
            temperature,
            regularize=True,
            **kwargs,
        )
        self.fuse = fgnl.fuse
        self.mose_units = fgnl.mose_units
        self._config = {
            "num_classes": num_classes,
            "clip_frames": clip_frames,
            "mel_bins": mel_bins,
            "filters": tuple(filters),
            "reduction": reduction,
            "normalize": normalize,
            "gru_units": gru_units,
            "block_dropout": block_dropout,
            "head_dropout": head_dropout,
            "temperature": temperature,
            "dtype": policy.name,
        }

    def get_config(self):
        """Returns the constructor's arguments."""
        return {**self._config, "name": self.name}
