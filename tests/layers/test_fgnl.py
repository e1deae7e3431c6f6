import numpy as np
import pytest
from scipy import ndimage

from lca_keras.layers import FGNL
from tests.layer_checks import check_layer

SHAPES = [(2, 4, 3, 8), (2, 8, 6, 8)]


def random_layer(**kwargs):
    """A layer with random weights, and its inputs."""
    rng = np.random.default_rng(0)
    inputs = [rng.normal(size=shape).astype("float32") for shape in SHAPES]
    layer = FGNL(**kwargs, name="fgnl")
    layer(inputs)
    for weight in layer.trainable_weights:
        weight.assign(rng.normal(0, 0.5, weight.shape))
    return layer, inputs


def reference(layer, deep, shallow):
    """FGNL in NumPy, straight from the equations; one clip. Returns Z, R and A."""
    weights = {w.path.split("fgnl/")[-1]: w.numpy() for w in layer.weights}
    offsets = np.arange(-2, 3)
    taps = np.exp(-(offsets**2) / (2 * 0.707**2))
    kernel = np.outer(taps, taps)
    kernel /= kernel.sum()

    def project(maps, name):
        maps = maps @ weights[f"{name}/conv/kernel"][0, 0]
        maps = maps + weights[f"{name}/conv/bias"]
        smooth = [
            ndimage.correlate(maps[..., c], kernel, mode="constant")
            for c in range(maps.shape[-1])
        ]
        return np.stack(smooth, -1).reshape(-1, maps.shape[-1])

    def softmax(values, axis):
        values = np.exp(values - values.max(axis=axis, keepdims=True))
        return values / values.sum(axis=axis, keepdims=True)

    theta = project(deep, "theta")
    phi = np.concatenate([project(deep, "phi_deep"), project(shallow, "phi_shallow")])
    g = np.concatenate([project(deep, "g_deep"), project(shallow, "g_shallow")])
    shifts = theta.shape[1]
    attended, scores = [], []
    for p in range(shifts):
        s = theta @ np.roll(phi, p, axis=1).T
        r = softmax(s, axis=1 if layer.normalize == "keys" else 0) @ g
        hidden = weights["mose/excite/kernel"][0] * r.mean()
        hidden = np.maximum(hidden + weights["mose/excite/bias"], 0)
        scores.append(
            hidden @ weights["mose/score/kernel"][:, 0] + weights["mose/score/bias"][0]
        )
        attended.append(r)
    attention = softmax(np.array(scores), axis=0)
    joined = np.empty((*deep.shape[:2], shifts * shifts))
    for channel in range(shifts):
        for p in range(shifts):
            joined[..., channel * shifts + p] = (
                attention[p] * attended[p][:, channel]
            ).reshape(deep.shape[:2])
    update = joined @ weights["output_conv/kernel"][0, 0]
    return deep + update + weights["output_conv/bias"], np.array(attended), attention


@pytest.mark.parametrize("normalize", ["keys", "queries"])
def test_equals_the_equations(normalize):
    layer, inputs = random_layer(reduction=2, normalize=normalize)
    outputs, attended, attention = layer(inputs, return_attention=True)
    for clip in range(2):
        z, r, a = reference(layer, inputs[0][clip], inputs[1][clip])
        np.testing.assert_allclose(attended[clip], r, atol=1e-4)
        np.testing.assert_allclose(attention[clip], a, atol=1e-4)
        np.testing.assert_allclose(outputs[clip], z, atol=1e-4)


def test_attention_is_uniform_over_queries_and_not_over_keys():
    layer, inputs = random_layer(reduction=2, normalize="queries")
    *_, uniform = layer(inputs, return_attention=True)
    np.testing.assert_allclose(uniform, np.full((2, 4), 0.25), atol=1e-6)
    layer, inputs = random_layer(reduction=2, normalize="keys")
    *_, real = layer(inputs, return_attention=True)
    assert np.ptp(real, axis=1).min() > 1e-3


def test_fuse_with_its_own_attention_is_the_call():
    layer, inputs = random_layer(reduction=2)
    outputs, attended, attention = layer(inputs, return_attention=True)
    again = layer.fuse(inputs[0], attended, attention)
    np.testing.assert_array_equal(again, outputs)


def test_layer_contract():
    check_layer(
        FGNL,
        init_kwargs={
            "reduction": 4,
            "normalize": "keys",
            "kernel_size": 3,
            "sigma": 0.5,
            "mose_units": 6,
        },
        input_shape=SHAPES,
        expected_shape=SHAPES[0],
        num_trainable=5 * 2 + 4 + 2,
        num_non_trainable=5,
    )


@pytest.mark.parametrize("reduction", [8, 3])
def test_rejects_reductions_that_leave_no_shifts(reduction):
    inputs = [np.zeros(shape, "float32") for shape in SHAPES]
    with pytest.raises(ValueError, match=f"reduction={reduction}, channels=8"):
        FGNL(reduction=reduction)(inputs)


def test_rejects_unknown_normalisation():
    with pytest.raises(ValueError, match="normalize='values'"):
        FGNL(normalize="values")
