"""What a network attends to: class activation maps, and the share of the voice in them.

Gradients are TensorFlow's; the networks are those of `lca_keras.models`.
"""

import keras
import numpy as np

from lca_keras.base.errors import UserError

_CLIPS_AT_ONCE = 32


class ClassActivation:
    """Grad-CAM of a singer network.

    With maps `F` `(mel, time, channels)` of a layer and the logit `z_c` of an artist,

        w_k = mean over positions of  d z_c / d F_k,    CAM = relu( sum_k w_k F_k )

    A map is large where the layer speaks for the artist. Where it is taken after a
    pooling of 2 x 2, one of its cells stands for several of the spectrogram.

    Args:
        network: `lca_keras.models.backbone.ServedBackbone`, with weights.
        layer: One of its `map_layers`: `"convolution"`, the output of the last
            convolution block, or `"fgnl"`, that of the attention. Default is the last.
        attention: Optional layer from attended maps to an attention, which takes the
            place of the network's own: the counterfactual's, `LCAModel.cf_attention`.

    Raises:
        UserError: The network has no such layer.

    References:
        - Selvaraju et al., 2017, https://arxiv.org/abs/1610.02391
    """

    def __init__(self, network, layer=None, attention=None):
        layers = network.map_layers()
        self.layer = layer or next(reversed(layers), None)
        if self.layer not in layers:
            raise UserError(
                f"{type(network).__name__} has no layer {layer!r}; it has "
                f"{', '.join(layers) or 'no maps over frequency and time'}"
            )
        self._network = network
        self._attention = attention
        self._maps_of, self._onward = layers[self.layer]

    def __call__(self, clips, classes):
        """Computes maps.

        Args:
            clips: What the network takes: an array `(clips, …)`, or a dict of several.
            classes: Int array `(clips,)`, the artist that each is asked about.

        Returns:
            Float32 array `(clips, mel, time)`, not negative, as fine as the layer is.
        """
        import tensorflow as tf

        classes = np.asarray(classes)
        maps = []
        for start in range(0, len(classes), _CLIPS_AT_ONCE):
            part = slice(start, start + _CLIPS_AT_ONCE)
            few = keras.tree.map_structure(lambda array: array[part], clips)  # noqa: B023
            maps.append(self._of(few, tf.constant(classes[part], tf.int32)).numpy())
        return np.concatenate(maps)

    def _of(self, clips, classes):
        """Maps of a few clips, a tensor."""
        import tensorflow as tf

        maps, beside = self._maps_of(clips)
        if self._attention is not None:
            encoded = self._network.encode(clips, training=False)
            features, attended = encoded["features"], encoded["attended"]
            maps = self._network.fuse(features, attended, self._attention(attended))

        def logits(maps):
            embedding = self._network.embed(self._onward(maps, beside))
            return self._network.classifier(embedding)

        return _activation(tf.convert_to_tensor(maps), logits, classes)


def _activation(maps, logits, classes):
    """Grad-CAM of maps `(clips, mel, time, channels)` below a function to logits."""
    import tensorflow as tf

    with tf.GradientTape() as tape:
        tape.watch(maps)
        scores = tf.gather(logits(maps), classes, batch_dims=1)
    gradients = tape.gradient(scores, maps)
    weights = tf.reduce_mean(gradients, axis=(1, 2), keepdims=True)
    return tf.nn.relu(tf.cast(tf.reduce_sum(weights * maps, axis=-1), tf.float32))


def upsample(maps, mel_bins, frames):
    """Brings maps `(clips, mel, time)` to the spectrogram's grid, bilinearly."""
    resized = keras.ops.image.resize(
        np.asarray(maps, "float32")[..., None], (mel_bins, frames), "bilinear"
    )
    return keras.ops.convert_to_numpy(resized)[..., 0]


def share(maps, cells):
    """Share of each map that lies on some cells.

    Args:
        maps: Float array `(clips, mel_bins, frames)`, not negative.
        cells: Bool array of that shape, or one that broadcasts to it.

    Returns:
        Float array `(clips,)`, NaN for a map that is zero everywhere.
    """
    maps = np.asarray(maps, "float64")
    inside = np.where(cells, maps, 0.0).sum(axis=(1, 2))
    whole = maps.sum(axis=(1, 2))
    return np.divide(inside, whole, out=np.full(len(maps), np.nan), where=whole > 0)


def band_cells(centres, band):
    """Cells whose centre lies in a band of frequencies.

    Args:
        centres: Float array `(bands,)`, Hz.
        band: Pair of floats, Hz.

    Returns:
        Bool array `(1, bands, 1)`.
    """
    return ((band[0] <= centres) & (centres <= band[1]))[None, :, None]


def voice_cells(vocals, accompaniment):
    """Cells that the voice dominates: where it has more power than its band.

    Args:
        vocals: Array `(clips, mel_bins, frames)`, decibels.
        accompaniment: The same of everything else.
    """
    return np.asarray(vocals) > np.asarray(accompaniment)
