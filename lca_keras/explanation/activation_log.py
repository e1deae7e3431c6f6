"""Activation maps of a few clips in TensorBoard, while a network trains."""

import os

import keras
import numpy as np

from lca_keras.drawing import plots
from lca_keras.explanation import saliency


class ActivationLog(keras.callbacks.Callback):
    """Draws for TensorBoard what in a few clips speaks for their artists.

    Args:
        folder: Folder of the log.
        clips: What the network takes, a batch.
        labels: Int array, artists of the clips.
        epochs: Int, epochs of the training; about twenty of them are drawn.
    """

    def __init__(self, folder, clips, labels, epochs):
        super().__init__()
        self._folder = os.fspath(folder)
        self._clips = clips
        self._labels = labels
        self._epochs = epochs
        self._every = max(1, epochs // 20)

    def on_train_begin(self, logs=None):
        """Prepares the maps, and opens the log."""
        import tensorflow as tf

        self._activation = saliency.ClassActivation(self.model.backbone)
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
        maps = saliency.upsample(maps, *mel.shape[1:])
        images = [plots.blend(*pair) for pair in zip(mel, maps, strict=True)]
        with self._writer.as_default():
            tf.summary.image(
                "class_activation", np.stack(images), epoch, max_outputs=len(images)
            )
        self._writer.flush()
