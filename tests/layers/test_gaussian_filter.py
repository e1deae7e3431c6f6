import numpy as np
import pytest

from lca_keras.layers import GaussianFilter2D
from tests.layer_checks import check_layer


def test_layer_contract():
    check_layer(
        GaussianFilter2D,
        init_kwargs={"kernel_size": 3, "sigma": 1.0},
        input_shape=(2, 16, 20, 4),
        expected_shape=(2, 16, 20, 4),
        num_non_trainable=1,
    )


def test_impulse_returns_the_kernel():
    impulse = np.zeros((1, 5, 5, 1), "float32")
    impulse[0, 2, 2, 0] = 1.0
    outputs = GaussianFilter2D(kernel_size=3, sigma=1.0)(impulse)
    edge, corner = np.exp(-0.5), np.exp(-1.0)  # Taps before dividing by Z.
    row, mid = [corner, edge, corner], [edge, 1.0, edge]
    expected = np.array([row, mid, row]) / (1 + 4 * edge + 4 * corner)
    np.testing.assert_allclose(outputs[0, 1:4, 1:4, 0], expected, rtol=1e-5)


@pytest.mark.parametrize("bad", [{"kernel_size": 4}, {"sigma": 0.0}])
def test_rejects_bad_arguments(bad):
    with pytest.raises(ValueError, match="Received: kernel_size="):
        GaussianFilter2D(**bad)
