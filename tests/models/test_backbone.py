"""A network of another kind, trained through the interface alone."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from lca_keras.base.sections import LossWeights
from lca_keras.models import LCAModel
from lca_keras.models.callbacks import WarmUp
from tests.layer_checks import check_saving


@keras.saving.register_keras_serializable(package="tests")
class SqueezeAndExcitation(keras.layers.Layer):
    """Attention over channels, `(batch, channels)`, from maps."""

    def __init__(self, channels, **kwargs):
        super().__init__(**kwargs)
        self.channels = channels
        self.dense = layers.Dense(channels, activation="sigmoid")

    def build(self, input_shape):
        self.dense.build((None, self.channels))

    def call(self, maps):
        return self.dense(ops.mean(maps, axis=(1, 2)))

    def get_config(self):
        return {**super().get_config(), "channels": self.channels}


@keras.saving.register_keras_serializable(package="tests")
class SmallCNN(keras.Model):
    """Convolution, squeeze-and-excitation, mean, classifier: nothing of ours."""

    def __init__(self, num_classes=3, **kwargs):
        super().__init__(**kwargs)
        self.num_classes = num_classes
        self.conv = layers.Conv2D(6, 3, activation="relu")
        self.attention = SqueezeAndExcitation(6)
        self.dropout = layers.Dropout(0.2, seed=0)
        self.classifier = layers.Dense(num_classes)

    def build(self, input_shape=None):
        self.conv.build((None, 16, 20, 1))
        self.attention.build((None, 14, 18, 6))
        self.classifier.build((None, 6))
        self.built = True

    def encode(self, inputs, training=None):
        maps = self.conv(inputs)
        attention = self.attention(maps)
        return {
            "features": maps,
            "attended": maps,
            "attention": attention,
            "maps": self.fuse(maps, maps, attention),
        }

    def new_attention(self, name):
        attention = SqueezeAndExcitation(6, name=name)
        attention.build((None, 14, 18, 6))
        return attention

    def fuse(self, features, attended, attention):
        return attended * attention[:, None, None]

    def embed(self, maps):
        return ops.mean(maps, axis=(1, 2))

    def get_config(self):
        return {**super().get_config(), "num_classes": self.num_classes}


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    labels = np.arange(24) % 3
    clips = rng.normal(0, 0.1, (24, 16, 20, 1)).astype("float32")
    stripes = np.arange(16)[:, None, None] % 2 + np.zeros((16, 20, 1))
    across = np.arange(20)[None, :, None] % 2 + np.zeros((16, 20, 1))
    clips += np.stack([stripes, across, (stripes + across) % 2])[labels]
    return clips, labels


def trained(method, data, epochs=40):
    network = SmallCNN()
    network.build()
    model = LCAModel(network, method, LossWeights(att=1.0), cf_dropout=0.0, seed=0)
    model.compile(keras.optimizers.Adam(1e-2))
    model.fit(*data, 8, epochs=epochs, verbose=0, callbacks=[WarmUp(epochs // 2)])
    return model


@pytest.mark.parametrize("method", ["none", "cal", "lca"])
def test_it_learns(method, data):
    clips, labels = data
    outputs = trained(method, data).predict(clips, verbose=0)
    assert (outputs["logits"].argmax(axis=1) == labels).mean() > 0.9
    if method != "none":
        assert outputs["cf_attention"].shape == outputs["attention"].shape == (24, 6)


def test_its_counterfactual_is_what_its_own_parts_give(data):
    model, (clips, _) = trained("lca", data), data
    network = model.backbone
    maps = network.conv(clips)
    cf_attention = model.cf_attention(maps)
    distance = np.abs(cf_attention - network.attention(maps)).mean()
    assert distance > 0.05  # Two attentions, and each of its own mind.
    hidden = network.embed(network.fuse(maps, maps, cf_attention))
    expected = network.classifier(hidden)
    np.testing.assert_allclose(model(clips)["cf_logits"], expected, atol=1e-5)


def test_it_is_saved_with_its_counterfactual(data, tmp_path):
    check_saving(trained("lca", data, epochs=2), data[0], tmp_path)


def test_what_is_missing_is_named(data):
    class NoFuse(SmallCNN):
        fuse = property()

    with pytest.raises(ValueError, match="NoFuse without fuse"):
        LCAModel(NoFuse())
