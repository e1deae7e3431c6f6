import numpy as np
import pytest

from lca_keras.base.sections import EFFECTS
from lca_keras.models import losses


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


def _effect_term(form, logits, cf_logits, label):
    """Straight from the definitions, in float64."""

    def softmax(values):
        e = np.exp(values - values.max())
        return e / e.sum()

    if form == "probability":
        effect = softmax(logits) - softmax(cf_logits)
    elif form == "logit":
        effect = logits - cf_logits
    else:  # A product of the two branches' probabilities, made to sum to one again.
        product = softmax(logits) * softmax(cf_logits)
        return -np.log(product[label] / product.sum())
    return -np.log(softmax(effect)[label])


@pytest.mark.parametrize("form", EFFECTS)
def test_gradients_of_the_effect_equal_finite_differences(form, logits):
    import tensorflow as tf

    labels, main, cf = np.array([0, 4, 2]), logits[:3], logits[3:]
    inputs = [tf.Variable(main), tf.Variable(cf)]
    attention = np.zeros((3, 4), "float32")
    with tf.GradientTape() as tape:
        terms = losses.counterfactual_terms(labels, *inputs, *2 * [attention], form)
        total = tf.reduce_sum(terms["effect"])
    gradients = tape.gradient(total, inputs)
    step = 1e-5
    for branch, gradient in enumerate(gradients):
        for row in range(3):
            for column in range(5):
                sides = []
                for sign in (1, -1):
                    pair = [main[row].astype("float64"), cf[row].astype("float64")]
                    pair[branch][column] += sign * step
                    sides.append(_effect_term(form, *pair, labels[row]))
                slope = (sides[0] - sides[1]) / (2 * step)
                np.testing.assert_allclose(gradient[row, column], slope, atol=2e-4)


@pytest.mark.parametrize(
    ("form", "unsolved", "solved"),
    [
        ("probability", -0.243, -0.254),  # Hardly depends on the counterfactual.
        ("logit", -0.50, -0.994),  # Clips that it solves weigh more,
        ("product", -0.50, -0.006),  # or less.
    ],
)
def test_what_the_effect_makes_of_the_counterfactual(form, unsolved, solved):
    """The figures of `effect_logits`: 20 artists, y_t = 0.5, y~_t = 0.05 and 0.9."""
    import tensorflow as tf

    def logits_of(probability):
        rest = (1 - probability) / 19
        return np.log([[probability] + 19 * [rest]]).astype("float32")

    for cf_probability, expected in ((0.05, unsolved), (0.9, solved)):
        main = tf.Variable(logits_of(0.5))
        with tf.GradientTape() as tape:
            effect = losses.effect_logits(main, logits_of(cf_probability), form)
            term = losses.cross_entropy(np.array([0]), effect)
        slope = tape.gradient(term, main)[0, 0]
        np.testing.assert_allclose(slope, expected, atol=1e-3)


def test_unknown_forms_of_the_effect_are_refused(logits):
    with pytest.raises(ValueError, match="form='ratio'"):
        losses.effect_logits(logits, logits, "ratio")


def embeddings(count=9, units=5):
    values = np.random.default_rng(3).normal(0.2, 1.0, (count, units))
    return values.astype("float32"), np.array([0, 1, 0, 2, 1, 0, 3, 2, 2])[:count]


def test_supervised_contrastive_equals_the_equation():
    """Khosla et al., equation 2, example by example."""
    values, labels = embeddings()
    unit = values.astype("float64") / np.linalg.norm(values, axis=1, keepdims=True)
    expected = []
    for i, label in enumerate(labels):
        others = [a for a in range(len(labels)) if a != i]
        total = sum(np.exp(unit[i] @ unit[a] / 0.1) for a in others)
        positives = [p for p in others if labels[p] == label]
        terms = [np.log(np.exp(unit[i] @ unit[p] / 0.1) / total) for p in positives]
        expected.append(-np.mean(terms) if terms else 0.0)
    found = losses.supervised_contrastive(labels, values)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert expected[6] == 0  # Alone of its artist.
    # The length of an embedding is no matter.
    again = losses.supervised_contrastive(labels, 7 * values)
    np.testing.assert_allclose(again, found, rtol=1e-4, atol=1e-5)


def test_additive_angular_margin_equals_the_equation():
    """Deng et al., equation 3, by arc cosines."""
    values, labels = embeddings()
    classes = np.random.default_rng(4).normal(0, 2, (5, 4)).astype("float32")
    unit = values / np.linalg.norm(values, axis=1, keepdims=True)
    angles = np.arccos(unit @ (classes / np.linalg.norm(classes, axis=0)))
    rows = np.arange(len(labels))
    moved = angles.copy()
    moved[rows, labels] += 0.2
    assert moved.max() < np.pi  # Nowhere beyond.
    logits = 30 * np.cos(moved)
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    expected = -np.log(shares[rows, labels] / shares.sum(axis=1))
    found = losses.additive_angular_margin(labels, values, classes)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)
    # Without a margin it is the cross-entropy of scaled cosines.
    plain = losses.additive_angular_margin(labels, values, classes, margin=0.0)
    expected = losses.cross_entropy(labels, (30 * np.cos(angles)).astype("float32"))
    np.testing.assert_allclose(plain, expected, rtol=1e-3, atol=1e-4)
    assert (np.array(found) > np.array(plain)).all()


def test_the_margin_falls_beyond_the_opposite_too():
    """The target's logit falls with its angle over the whole range, without a jump."""
    angles = np.linspace(0.01, np.pi - 0.01, 400)
    values = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype("float32")
    classes = np.array([[1.0, 0.0], [0.0, -1.0]], "float32")
    labels = np.zeros(len(angles), int)
    loss = np.array(losses.additive_angular_margin(labels, values, classes, scale=1.0))
    other = -np.sin(angles)  # Cosine to the other artist's vector.
    logit = other - np.log(np.expm1(loss))  # loss = log(1 + exp(other - target))
    steps = np.diff(logit)
    assert (steps < 1e-6).all()
    assert steps.min() > -0.05
