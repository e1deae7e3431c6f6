"""What a network attends to: class activation maps, and the share of the voice in them.

Gradients are TensorFlow's; the networks are those of `lca_keras.models`.
"""

import keras
import numpy as np

from lca_keras.base.errors import UserError

# Where maps are taken: the last convolution, and what attention makes of it.
LAYERS = ("convolution", "fgnl")
_CLIPS_AT_ONCE = 32


class ClassActivation:
    """Grad-CAM of a singer network.

    With maps `F` `(mel, time, channels)` of a layer and the logit `z_c` of an artist,

        w_k = mean over positions of  d z_c / d F_k,    CAM = relu( sum_k w_k F_k )

    A map is large where the layer speaks for the artist. Where it is taken after a
    pooling of 2 x 2, one of its cells stands for several of the spectrogram.

    Args:
        network: `lca_keras.models.CRNNFGNL`, `CRNN` or `CRNNM`, with weights.
        layer: `"convolution"`, the output of the last convolution block, or `"fgnl"`,
            that of the attention. Default is the later one that the network has.
        attention: Optional layer from attended maps to an attention, which takes the
            place of the network's own: the counterfactual's, `LCAModel.cf_attention`.

    Raises:
        UserError: The network has no such layer.

    References:
        - Selvaraju et al., 2017, https://arxiv.org/abs/1610.02391
    """

    def __init__(self, network, layer=None, attention=None):
        has_attention = "attended" in network.encoder.output
        layer = layer or LAYERS[has_attention]
        if layer not in LAYERS[: 1 + has_attention]:
            raise UserError(
                f"{type(network).__name__} has no layer {layer!r}; it has "
                f"{', '.join(LAYERS[: 1 + has_attention])}"
            )
        self.layer = layer
        self._network = network
        self._attention = attention
        encoder = network.encoder
        self._fgnl = encoder.get_layer("fgnl") if has_attention else None
        # Beside the last convolution what else leads on: the one before, to the
        # attention, or the last one of the melody's trunk.
        names = ["block4"]
        if has_attention or network.takes_melody:
            names.append("block3" if has_attention else "melody_block4")
        tensors = {name: encoder.get_layer(name).output for name in names}
        self._lower = keras.Model(encoder.input, tensors)

    def __call__(self, clips, classes):
        """Computes maps.

        Args:
            clips: What the network takes: float32 `(clips, mel_bins, frames, 1)`
                decibels, or a dict of two with the melody.
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

        tensors = list(self._lower(clips, training=False).values())
        if self.layer == "fgnl":
            maps = self._attended(tensors)
            return _activation(maps, self._logits, classes)

        def logits(convolved):
            return self._logits(self._attended([convolved, *tensors[1:]]))

        return _activation(tf.convert_to_tensor(tensors[0]), logits, classes)

    def _attended(self, tensors):
        """What the embedder takes, from the last convolutions."""
        if self._fgnl is None:
            return keras.ops.concatenate(tensors, axis=-1)
        if self._attention is None:
            return self._fgnl(tensors)
        attended = self._fgnl.attend(*tensors)
        return self._fgnl.fuse(tensors[0], attended, self._attention(attended))

    def _logits(self, maps):
        embedding = self._network.embedder(maps, training=False)
        return self._network.classifier(embedding)


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


def band_cells(config, band):
    """Mel bins whose centre lies in a band of frequencies.

    Args:
        config: `lca_keras.base.config.FeatureConfig`.
        band: Pair of floats, Hz.

    Returns:
        Bool array `(1, mel_bins, 1)`.
    """
    centres = centre_frequencies(config)
    return ((band[0] <= centres) & (centres <= band[1]))[None, :, None]


def centre_frequencies(config):
    """Centre frequency of each mel bin in Hz, of a `FeatureConfig`."""
    import librosa

    edges = librosa.mel_frequencies(
        config.mel_bins + 2, fmin=config.fmin, fmax=config.fmax
    )
    return edges[1:-1]


def voice_cells(vocals, accompaniment):
    """Cells that the voice dominates: where it has more power than its band.

    Args:
        vocals: Array `(clips, mel_bins, frames)`, decibels.
        accompaniment: The same of everything else.
    """
    return np.asarray(vocals) > np.asarray(accompaniment)
