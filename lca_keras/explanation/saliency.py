"""Class activation maps by TensorFlow's gradients, and the voice's share of them."""

import os

import keras
import numpy as np

from lca_keras.base.errors import UserError
from lca_keras.drawing import plots

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
            convolution block, or `"fgnl"`, that of the attention; others are a
            UserError. Default is the last.
        attention: Optional layer from attended maps to an attention, which takes the
            place of the network's own: the counterfactual's, `LCAModel.cf_attention`.

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
        self._network, self._attention = network, attention
        self._maps_of, self._onward = layers[self.layer]

    def __call__(self, clips, classes):
        """Maps, float32 `(clips, mel, time)`, not negative, as fine as the layer is.

        Args:
            clips: What the network takes: an array `(clips, …)`, or a dict of several.
            classes: Int array `(clips,)`, the artist that each is asked about.
        """
        import tensorflow as tf

        classes, maps = np.asarray(classes), []
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

        maps = tf.convert_to_tensor(maps)
        with tf.GradientTape() as tape:
            tape.watch(maps)
            embedding = self._network.embed(self._onward(maps, beside))
            logits = self._network.classifier(embedding)
            scores = tf.gather(logits, classes, batch_dims=1)
        gradients = tape.gradient(scores, maps)
        weights = tf.reduce_mean(gradients, axis=(1, 2), keepdims=True)
        return tf.nn.relu(tf.cast(tf.reduce_sum(weights * maps, axis=-1), tf.float32))


class ActivationLog(keras.callbacks.Callback):
    """Draws for TensorBoard what in a few clips speaks for their artists.

    Clips are a batch of what the network takes; of the training's epochs about twenty
    are drawn.
    """

    def __init__(self, folder, clips, labels, epochs):
        super().__init__()
        self._folder, self._epochs = os.fspath(folder), epochs
        self._clips, self._labels = clips, labels
        self._every = max(1, epochs // 20)

    def on_train_begin(self, logs=None):
        """Prepares the maps, and opens the log."""
        import tensorflow as tf

        self._activation = ClassActivation(self.model.backbone)
        self._writer = tf.summary.create_file_writer(self._folder)

    def on_train_end(self, logs=None):
        """Closes the log."""
        self._writer.close()

    def on_epoch_end(self, epoch, logs=None):
        """Draws the clips, in the first epoch, in the last, and on the way."""
        import tensorflow as tf

        if epoch % self._every and epoch + 1 < self._epochs:
            return
        maps = self._activation(self._clips, self._labels)
        mel = np.asarray(keras.tree.flatten(self._clips)[0])[..., 0]
        maps = upsample(maps, *mel.shape[1:])
        images = [plots.blend(*pair) for pair in zip(mel, maps, strict=True)]
        with self._writer.as_default():
            tf.summary.image(
                "class_activation", np.stack(images), epoch, max_outputs=len(images)
            )
        self._writer.flush()


def upsample(maps, mel_bins, frames):
    """Brings maps `(clips, mel, time)` to the spectrogram's grid, bilinearly."""
    resized = keras.ops.image.resize(
        np.asarray(maps, "float32")[..., None], (mel_bins, frames), "bilinear"
    )
    return keras.ops.convert_to_numpy(resized)[..., 0]


def share(maps, cells):
    """Share of each map that lies on some cells, NaN for one that is zero everywhere.

    Args:
        maps: Float array `(clips, mel_bins, frames)`, not negative.
        cells: Bool array of that shape, or one that broadcasts to it.
    """
    maps = np.asarray(maps, "float64")
    inside = np.where(cells, maps, 0.0).sum(axis=(1, 2))
    whole = maps.sum(axis=(1, 2))
    return np.divide(inside, whole, out=np.full(len(maps), np.nan), where=whole > 0)


def band_cells(centres, band):
    """Cells whose centre (Hz) lies in a band of frequencies, `(1, bands, 1)`."""
    return ((band[0] <= centres) & (centres <= band[1]))[None, :, None]


def voice_cells(vocals, accompaniment):
    """Cells that the voice dominates: where it has more power (dB) than its band."""
    return np.asarray(vocals) > np.asarray(accompaniment)
