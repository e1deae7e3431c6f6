import numpy as np
import pytest

from lca_keras.layers import CalibratedSoftmax
from tests.layer_checks import check_layer


def test_layer_contract():
    check_layer(CalibratedSoftmax, {"temperature": 2.5}, (3, 4), (3, 4))


def test_is_the_softmax_of_scaled_logits():
    logits = np.array([[1.0, -2.0, 3.0]], "float32")
    expected = np.exp(logits / 4) / np.exp(logits / 4).sum()
    np.testing.assert_allclose(CalibratedSoftmax(4.0)(logits), expected, rtol=1e-6)


def test_rejects_zero():
    with pytest.raises(ValueError, match="temperature=0"):
        CalibratedSoftmax(0)
