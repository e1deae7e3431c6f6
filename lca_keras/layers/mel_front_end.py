"""Waveform to log mel-spectrogram inside the graph."""

import dataclasses

import keras
import numpy as np
from keras import ops

from lca_keras.audio import features
from lca_keras.config import FeatureConfig


@keras.saving.register_keras_serializable(package="lca_keras")
class MelFrontEnd(keras.layers.Layer):
    """The features of `lca_keras.audio.features.mel_spectrogram`, as a layer.

    `keras.layers.MelSpectrogram` is another feature: HTK mel, filters of unit peak,
    and a maximum over the whole batch. Here the maximum is each song's own, so a
    song's result does not depend on its batch.

    Args:
        feature_config: `lca_keras.config.FeatureConfig` or a dict of its fields.

    Call arguments:
        inputs: Float tensor, `(batch, samples)` at the configured sample rate.

    Returns:
        Float32 tensor, `(batch, mel_bins, 1 + samples // hop_length, 1)`, decibels.
    """

    def __init__(self, feature_config=None, **kwargs):
        kwargs.setdefault("dtype", "float32")
        super().__init__(**kwargs)
        if isinstance(feature_config, dict):
            # Of a model that was saved when songs were as loud as their files.
            feature_config = FeatureConfig(**{"level": "none", **feature_config})
        self.feature_config = feature_config or FeatureConfig()
        self.input_spec = keras.layers.InputSpec(ndim=2)

    def call(self, inputs):
        """Computes the features; see the class."""
        config = self.feature_config
        half = config.n_fft // 2
        if config.level != "none":
            inputs = inputs - ops.mean(inputs, axis=1, keepdims=True)
        padded = ops.pad(inputs, ((0, 0), (half, half)))
        real, imaginary = ops.stft(
            padded,
            sequence_length=config.n_fft,
            sequence_stride=config.hop_length,
            fft_length=config.n_fft,
            window=features.hann_window(config.n_fft),
            center=False,
        )
        # (batch, frames, bins) -> (batch, frames, mel_bins)
        mel = ops.matmul(
            ops.square(real) + ops.square(imaginary), features.mel_filters(config).T
        )
        if config.level != "none":
            mel = mel * self._gain(mel)
        scale = np.float32(features.decibel_scale(config) / np.log(10.0))
        decibels = scale * ops.log(ops.maximum(mel, features.FLOOR))
        loudest = ops.max(decibels, axis=(1, 2), keepdims=True)
        decibels = ops.maximum(decibels, loudest - config.top_db)
        return ops.transpose(decibels, (0, 2, 1))[..., None]

    def _gain(self, mel):
        """`lca_keras.audio.features.level_gain`, of (batch, frames, mel_bins)."""
        frames = ops.sum(mel, axis=2, keepdims=True)
        gate = features.LEVEL_GATE * ops.max(frames, axis=1, keepdims=True)
        sounding = ops.cast(frames >= gate, frames.dtype)
        total = ops.sum(frames * sounding, axis=1, keepdims=True)
        count = ops.sum(sounding, axis=1, keepdims=True)
        return features.SONG_LEVEL * count / total

    def get_config(self):
        """Returns the constructor's arguments."""
        config = super().get_config()
        config.update({"feature_config": dataclasses.asdict(self.feature_config)})
        return config
