import numpy as np
import pytest

from lca_keras.layers import MoSE
from tests.layer_checks import check_layer


def test_layer_contract():
    check_layer(
        MoSE,
        init_kwargs={"units": 16},
        input_shape=(2, 4, 30, 4),
        expected_shape=(2, 4),
        num_trainable=4,
    )


def test_equals_the_equation():
    rng = np.random.default_rng(0)
    maps = rng.normal(0, 3, (2, 5, 7, 5)).astype("float32")
    layer = MoSE(units=8)
    layer(maps)
    assert layer.count_params() == 3 * 8 + 1
    weights = [rng.normal(size=w.shape) for w in layer.weights]
    layer.set_weights(weights)
    w1, b1, w2, b2 = weights
    scores = np.empty((2, 5))
    for clip in range(2):
        for shift in range(5):
            z = maps[clip, shift].mean()
            hidden = np.maximum(w1[0] * z + b1, 0)
            scores[clip, shift] = hidden @ w2[:, 0] + b2[0]
    expected = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(layer(maps), expected, rtol=1e-4)


def test_rejects_no_units():
    with pytest.raises(ValueError, match="units=0"):
        MoSE(units=0)
