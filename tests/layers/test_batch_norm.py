import keras
import numpy as np
import pytest

from lca_keras.layers import FusedBatchNormalization


@pytest.mark.parametrize("axis", [1, -1])
def test_equals_the_library_layer(axis):
    rng = np.random.default_rng(0)
    inputs = keras.ops.convert_to_tensor(
        rng.normal(3, 5, (3, 6, 5, 4)).astype("float32")
    )
    layers = [FusedBatchNormalization(axis=axis), keras.layers.BatchNormalization(axis)]
    for layer in layers:
        layer.build(inputs.shape)
        layer.gamma.assign(np.linspace(-1, 2, layer.gamma.shape[0]))
        layer.beta.assign(np.linspace(1, -1, layer.beta.shape[0]))
    for training in (True, True, False):  # Twice: moving averages add up.
        outputs = [layer(inputs, training=training) for layer in layers]
        np.testing.assert_allclose(*outputs, atol=2e-5)
    for fused, library in zip(layers[0].weights, layers[1].weights, strict=True):
        assert fused.name == library.name
        np.testing.assert_allclose(fused, library, rtol=1e-4, atol=1e-6)


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="gradients by tf.GradientTape"
)
def test_gradients_equal_the_library_layer():
    import tensorflow as tf

    rng = np.random.default_rng(0)
    inputs = tf.constant(rng.normal(0, 2, (2, 5, 4, 3)), "float32")
    upstream = tf.constant(rng.normal(0, 1, (2, 5, 4, 3)), "float32")
    gradients = []
    for layer in (FusedBatchNormalization(), keras.layers.BatchNormalization()):
        layer.build(inputs.shape)
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            loss = tf.reduce_sum(layer(inputs, training=True) * upstream)
        variables = [layer.gamma.value, layer.beta.value]
        gradients.append(tape.gradient(loss, [inputs, *variables]))
    for fused, library in zip(*gradients, strict=True):
        np.testing.assert_allclose(fused, library, atol=1e-4)


def test_frozen_layer_keeps_its_statistics():
    layer = FusedBatchNormalization()
    layer.build((None, 4, 4, 2))
    layer.trainable = False
    inputs = np.full((2, 4, 4, 2), 7.0, "float32")
    outputs = layer(inputs, training=True)
    np.testing.assert_allclose(outputs, inputs / np.sqrt(1 + layer.epsilon), rtol=1e-5)
    np.testing.assert_array_equal(layer.moving_mean, [0.0, 0.0])


def test_saves_in_a_model(tmp_path):
    from tests.layer_checks import check_saving

    inputs = keras.Input((4, 6, 3))
    model = keras.Model(inputs, FusedBatchNormalization(momentum=0.5)(inputs))
    x = np.random.default_rng(0).normal(size=(2, 4, 6, 3)).astype("float32")
    model(x, training=True)
    check_saving(model, x, tmp_path)


def test_rejects_missing_scale():
    with pytest.raises(ValueError, match="Received: scale=False"):
        FusedBatchNormalization(scale=False)
