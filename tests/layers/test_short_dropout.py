import keras
import numpy as np
import pytest

from lca_keras.layers import ShortDropout
from tests.layer_checks import check_layer


def test_layer_contract():
    check_layer(ShortDropout, {"rate": 0.25, "seed": 3}, (2, 6, 4), (2, 6, 4))


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_drops_the_stated_share_and_keeps_the_mean(rate, dtype):
    ones = np.ones((50, 40, 100), "float32")
    outputs = ShortDropout(rate, seed=1, dtype=dtype)(ones, training=True)
    outputs = np.array(keras.ops.cast(outputs, "float32"))
    dropped = (outputs == 0).mean()
    # Five standard deviations of 200,000 draws.
    assert dropped == pytest.approx(rate, abs=5 * np.sqrt(rate * (1 - rate) / 2e5))
    kept = outputs[outputs != 0]
    np.testing.assert_allclose(kept, 1 / (1 - rate), rtol=0.01)
    # Neighbours share a random word and must not share their fate.
    left, right = outputs[..., 0::2] == 0, outputs[..., 1::2] == 0
    assert abs(np.corrcoef(left.ravel(), right.ravel())[0, 1]) < 0.02


def test_draws_anew_each_call_and_repeats_by_seed():
    ones = np.ones((8, 16), "float32")
    layers = [ShortDropout(0.5, seed=seed) for seed in (1, 1, 2)]
    first = [np.array(layer(ones, training=True)) for layer in layers]
    np.testing.assert_array_equal(first[0], first[1])
    assert not np.array_equal(first[0], first[2])
    assert not np.array_equal(first[0], layers[0](ones, training=True))


def test_passes_through_at_inference_and_takes_odd_sizes():
    values = np.random.default_rng(0).normal(size=(4, 7)).astype("float32")
    layer = ShortDropout(0.5, seed=0)
    np.testing.assert_array_equal(layer(values), values)
    outputs = np.array(layer(values, training=True))
    assert 0 < (outputs == 0).mean() < 1
