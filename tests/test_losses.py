import numpy as np
import pytest

from lca_keras import losses


@pytest.fixture
def logits():
    return np.random.default_rng(0).normal(0, 3, (6, 5)).astype("float32")


def test_cross_entropy_and_entropy_equal_their_definitions(logits):
    labels = np.array([0, 4, 2, 2, 1, 3])
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    expected = -np.log(probabilities[np.arange(6), labels])
    np.testing.assert_allclose(losses.cross_entropy(labels, logits), expected, 1e-5)
    expected = -(probabilities * np.log(probabilities)).sum(axis=1)
    np.testing.assert_allclose(losses.entropy(logits), expected, rtol=1e-4)


def test_extreme_logits_stay_finite():
    logits = np.array([[1e4, -1e4, 0.0]], "float32")
    terms = losses.counterfactual_terms(
        np.array([1]), logits, -logits, np.eye(2)[:1], np.eye(2)[1:]
    )
    assert set(terms) == set(losses.TERMS) == set(losses.SIGNS)
    assert all(np.isfinite(value).all() for value in terms.values())
    np.testing.assert_allclose(terms["ent_main"], 0, atol=1e-6)


def test_uniform_predictions_have_the_largest_entropy():
    np.testing.assert_allclose(
        losses.entropy(np.zeros((2, 7), "float32")), np.log(7), rtol=1e-6
    )


def test_attention_distance_is_the_mean_over_shifts():
    a = np.array([[0.25, 0.25, 0.25, 0.25], [1.0, 0.0, 0.0, 0.0]])
    b = np.array([[0.25, 0.25, 0.25, 0.25], [0.0, 0.0, 0.0, 1.0]])
    np.testing.assert_allclose(losses.attention_distance(a, b), [0.0, 0.5])
