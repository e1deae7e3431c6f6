import keras
import numpy as np

from lca_keras.layers import ConvBlock
from tests.layer_checks import check_layer


def test_layer_contract():
    check_layer(
        ConvBlock,
        init_kwargs={"filters": 6, "pool_size": (4, 2), "dropout": 0.2},
        input_shape=(2, 16, 9, 3),
        expected_shape=(2, 4, 4, 6),
        num_trainable=4,
        num_non_trainable=2,
    )


def test_is_convolution_elu_norm_pool():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1, 6, 4, 2)).astype("float32")
    block = ConvBlock(3, (2, 2))
    block(x)
    block.norm.moving_mean.assign(rng.normal(size=3))
    block.norm.moving_variance.assign(rng.uniform(0.5, 2, 3))
    kernel, bias = (w.numpy() for w in (block.conv.kernel, block.conv.bias))
    padded = np.pad(x[0], ((1, 1), (1, 1), (0, 0)))
    maps = np.empty((6, 4, 3))
    for row in range(6):
        for column in range(4):
            window = padded[row : row + 3, column : column + 3]
            maps[row, column] = np.tensordot(window, kernel, 3) + bias
    maps = np.where(maps > 0, maps, np.exp(maps) - 1)
    mean, variance = block.norm.moving_mean, block.norm.moving_variance
    maps = (maps - mean) / np.sqrt(variance + block.norm.epsilon)
    pooled = maps.reshape(3, 2, 2, 2, 3).max(axis=(1, 3))
    np.testing.assert_allclose(block(x)[0], pooled, atol=1e-5)


def test_without_pooling_keeps_the_size():
    block = ConvBlock(5)
    assert block(np.zeros((1, 8, 7, 1))).shape == (1, 8, 7, 5)
    assert block.compute_output_shape((None, 8, 7, 1)) == (None, 8, 7, 5)
    assert keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(block)
    )
