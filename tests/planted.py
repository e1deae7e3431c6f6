"""A front end and two networks that are not ours, as somebody else would write them."""

import keras
import numpy as np
from keras import layers, ops

from lca_keras.features.front_end import FrontEnd, Stream
from lca_keras.layers import CalibratedSoftmax


class Energies(FrontEnd):
    """Raw energies of quarter frames, 8 kHz, 20 frames a second: no hertz anywhere."""

    sample_rate = 8000
    streams = (Stream("energies", (None, 4), "float32", hop=400, centred=False),)
    range_db = 50.0

    def __init__(self, config):
        pass

    def frames(self, sound, stems=None, threads=None):
        samples = sound if isinstance(sound, np.ndarray) else sound.samples
        count = samples.size // 400
        pieces = samples[: count * 400].reshape(count, 4, 100)
        return {"energies": 100 * np.square(pieces).mean(axis=2)}

    def layer(self):
        import tensorflow as tf

        def energies(waveform, lengths):
            count = tf.shape(waveform)[1] // 400
            whole = tf.reshape(waveform[:, : count * 400], (-1, count, 4, 100))
            own = tf.sequence_mask(lengths // 400, count, tf.float32)[..., None]
            return {"energies": 100 * own * tf.reduce_mean(whole**2, axis=3)}

        return energies


class Served(keras.Model):
    """What both networks have to be served with; see `ServedBackbone`."""

    units = 6

    def __init__(self, num_classes, shape, temperature=1.0, **kwargs):
        super().__init__(**kwargs)
        self.num_classes, self.shape, self.temperature = num_classes, shape, temperature
        self.dropout = layers.Dropout(0.1, name="dropout")
        self.classifier = layers.Dense(num_classes, name="classifier")
        self.classifier.build((None, self.units))
        self.probabilities = CalibratedSoftmax(temperature, name="probabilities")
        self.embedding_size = self.units
        self.voiceprint_size = 2 * self.units

    def call(self, inputs, training=None):
        embedding = self.embed(self.encode(inputs, training)["maps"])
        hidden = self.dropout(embedding, training=training)
        return self.probabilities(self.classifier(hidden))

    def describe(self, maps):
        axes = tuple(range(1, len(maps.shape) - 1))
        pooled = [ops.mean(maps, axis=axes), ops.max(maps, axis=axes)]
        return {
            "embedding": ops.cast(self.embed(maps), "float32"),
            "voiceprint": ops.cast(ops.concatenate(pooled, axis=-1), "float32"),
        }

    def for_inference(self, temperature):
        config = {**self.get_config(), "temperature": temperature, "dtype": "float32"}
        copy = type(self).from_config(config)
        copy.set_weights(self.get_weights())
        return copy

    def unrolled(self):
        return self

    def map_layers(self):
        return {}

    def get_config(self):
        return {
            "name": self.name,
            "num_classes": self.num_classes,
            "shape": self.shape,
            "temperature": self.temperature,
        }

    @classmethod
    def of_config(cls, model, num_classes, shapes, dtype=None):
        (shape,) = shapes.values()
        return cls(num_classes, shape, dtype=dtype)


@keras.saving.register_keras_serializable(package="tests")
class EnergyNet(Served):
    """A convolution over time."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.conv = layers.Conv1D(6, 5, 2, activation="relu", name="conv")
        self.conv.build((None, *self.shape))
        self.built = True

    def encode(self, inputs, training=None):
        return {"maps": self.conv(ops.log(inputs + 1e-4))}

    def embed(self, maps):
        return ops.mean(maps, axis=1)


@keras.saving.register_keras_serializable(package="tests")
class Squeeze(keras.layers.Layer):
    """Attention over channels, `(batch, channels)`, from maps."""

    def build(self, input_shape):
        self.dense = layers.Dense(input_shape[-1], activation="sigmoid", name="dense")
        self.dense.build((None, input_shape[-1]))

    def call(self, maps):
        return self.dense(ops.mean(maps, axis=(1, 2)))


@keras.saving.register_keras_serializable(package="tests")
class ForeignCNN(Served):
    """Convolution over a spectrogram, squeeze-and-excitation, mean."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.conv = layers.Conv2D(6, 5, 4, activation="relu", name="conv")
        self.conv.build((None, *self.shape))
        self.attention = Squeeze(name="attention")
        self.attention.build(self.conv.compute_output_shape((None, *self.shape)))
        self.built = True

    def encode(self, inputs, training=None):
        maps = self.conv(inputs / 40)
        attention = self.attention(maps)
        return {
            "features": maps,
            "attended": maps,
            "attention": attention,
            "maps": self.fuse(maps, maps, attention),
        }

    def new_attention(self, name):
        attention = Squeeze(name=name)
        attention.build(self.conv.compute_output_shape((None, *self.shape)))
        return attention

    def fuse(self, features, attended, attention):
        return attended * attention[:, None, None]

    def embed(self, maps):
        return ops.mean(maps, axis=(1, 2))

    def map_layers(self):
        def of(inputs):
            return self.encode(inputs)["maps"], []

        return {"squeezed": (of, lambda maps, beside: maps)}
