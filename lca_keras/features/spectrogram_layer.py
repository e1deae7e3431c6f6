"""Waveform to log mel-spectrogram inside the graph."""

import dataclasses

import keras
from keras import ops

from lca_keras.base.sections import FeatureConfig
from lca_keras.features import spectrogram

# Of every song of a batch; bounds memory.
_FRAMES_AT_ONCE = 256


@keras.saving.register_keras_serializable(package="lca_keras")
class LogMelSpectrogram(keras.layers.Layer):
    """The features of `lca_keras.features.spectrogram.mel_spectrogram`, as a layer.

    `keras.layers.MelSpectrogram` is another feature: HTK mel, filters of unit peak,
    and a maximum over the whole batch. Here the maximum is each song's own, so a
    song's result does not depend on its batch.

    Args:
        feature_config: `lca_keras.base.sections.FeatureConfig` or a dict of its fields.

    Call arguments:
        inputs: Float tensor, `(batch, samples)` at the configured sample rate.
        lengths: Optional int tensor `(batch,)`, samples of each song; what follows
            them is padding, and no matter. The frames of a song are the first
            `1 + length // hop_length`, the others hold nothing.

    Returns:
        Float32 tensor, `(batch, mel_bins, 1 + samples // hop_length, 1)`, decibels.
    """

    def __init__(self, feature_config=None, **kwargs):
        kwargs.setdefault("dtype", "float32")
        super().__init__(**kwargs)
        if isinstance(feature_config, dict):
            feature_config = FeatureConfig(**feature_config)
        self.feature_config = feature_config or FeatureConfig()
        self.input_spec = keras.layers.InputSpec(ndim=2)

    def call(self, inputs, lengths=None):
        """Computes the features; see the class."""
        config = self.feature_config
        size = count = ops.shape(inputs)[1]
        if lengths is not None:
            lengths = ops.cast(lengths, "int32")[:, None]
            size = ops.maximum(lengths, 1)
            inside = ops.arange(count, dtype="int32") < lengths
            inputs = ops.where(inside, inputs, 0.0)
        if config.level != "none":
            total = ops.sum(inputs, axis=1, keepdims=True)
            inputs = inputs - total / ops.cast(size, inputs.dtype)
            if lengths is not None:
                inputs = ops.where(inside, inputs, 0.0)
        mel = self._power(inputs)
        if lengths is not None:
            frames = ops.arange(ops.shape(mel)[1], dtype="int32")
            theirs = frames < 1 + lengths // config.hop_length
            mel = ops.where(theirs[..., None], mel, 0.0)
        if config.level != "none":
            mel = mel * self._gain(mel)
        decibels = spectrogram.decibels_of(mel, ops.max(mel, axis=(1, 2)), config)
        return ops.transpose(decibels, (0, 2, 1))[..., None]

    def _power(self, inputs):
        """(batch, samples) -> (batch, frames, mel_bins), a few frames at a time.

        Of an hour the spectra of all frames would be gigabytes.
        """
        config = self.feature_config
        half, hop = config.n_fft // 2, config.hop_length
        batch, samples = ops.shape(inputs)
        frames = 1 + samples // hop
        if isinstance(frames, int) and frames <= 2 * _FRAMES_AT_ONCE:
            return self._spectra(ops.pad(inputs, ((0, 0), (half, half))))
        pieces = -(-frames // _FRAMES_AT_ONCE)
        needed = (pieces * _FRAMES_AT_ONCE - 1) * hop + config.n_fft
        padded = ops.pad(inputs, ((0, 0), (half, needed - half - samples)))

        def piece(number):
            start = number * _FRAMES_AT_ONCE * hop
            size = (_FRAMES_AT_ONCE - 1) * hop + config.n_fft
            return self._spectra(ops.slice(padded, (0, start), (batch, size)))

        mel = ops.map(piece, ops.arange(pieces))
        mel = ops.transpose(mel, (1, 0, 2, 3))
        mel = ops.reshape(mel, (batch, pieces * _FRAMES_AT_ONCE, config.mel_bins))
        return mel[:, :frames]

    def _spectra(self, padded):
        """(batch, samples) -> (batch, full windows, mel_bins)."""
        config = self.feature_config
        real, imaginary = ops.stft(
            padded,
            sequence_length=config.n_fft,
            sequence_stride=config.hop_length,
            fft_length=config.n_fft,
            window=spectrogram.hann_window(config.n_fft),
            center=False,
        )
        # (batch, frames, bins) -> (batch, frames, mel_bins)
        return ops.matmul(
            ops.square(real) + ops.square(imaginary), spectrogram.mel_filters(config).T
        )

    def _gain(self, mel):
        """`lca_keras.features.spectrogram.level_gain`, of (batch, frames, mel_bins)."""
        frames = ops.sum(mel, axis=2, keepdims=True)
        gate = spectrogram.LEVEL_GATE * ops.max(frames, axis=1, keepdims=True)
        sounding = ops.cast(frames >= gate, frames.dtype)
        total = ops.sum(frames * sounding, axis=1, keepdims=True)
        count = ops.sum(sounding, axis=1, keepdims=True)
        silent = total == 0
        gain = spectrogram.SONG_LEVEL * count / ops.where(silent, 1.0, total)
        return ops.where(silent, 1.0, gain)

    def get_config(self):
        """Returns the constructor's arguments."""
        features = dataclasses.asdict(self.feature_config)
        return {**super().get_config(), "feature_config": features}
