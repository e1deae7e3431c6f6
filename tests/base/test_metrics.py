import collections

import numpy as np
import pytest

from lca_keras.base import metrics
from lca_keras.exports import decisions


def plain_vote(probabilities):
    """The rule in plain Python: most votes, ties by summed probability."""
    rows = [list(row) for row in probabilities]
    votes = collections.Counter(row.index(max(row)) for row in rows)
    most = max(votes.values())
    tied = [index for index, count in votes.items() if count == most]
    return max(tied, key=lambda index: sum(row[index] for row in rows))


@pytest.mark.parametrize("seed", range(40))
def test_vote_is_the_majority_with_the_stated_tie_rule(seed):
    rng = np.random.default_rng(seed)
    clips, classes = rng.integers(1, 8), rng.integers(2, 6)
    # Few clips and classes: most of these cases have ties.
    probabilities = rng.dirichlet(np.ones(classes), clips).astype("float32")
    expected = plain_vote(probabilities)
    assert metrics.vote(probabilities) == expected
    batch = np.stack([probabilities, probabilities[::-1]])
    assert decisions.vote(batch).numpy().tolist() == [expected, expected]


def test_vote_prefers_counts_to_sums():
    probabilities = [[0.4, 0.35, 0.25], [0.4, 0.35, 0.25], [0.0, 1.0, 0.0]]
    assert metrics.vote(probabilities) == 0
    assert metrics.vote(probabilities[1:]) == 1  # One each: the sum decides.


def test_scores_by_hand():
    labels = np.array([0, 0, 0, 1, 1, 2])
    predictions = np.array([0, 0, 1, 1, 1, 0])
    scores = metrics.identification_scores(labels, predictions, num_classes=4)
    f1 = [2 * 2 / (3 + 3), 2 * 2 / (2 + 3), 0.0]  # 2 TP / (support + predicted)
    assert scores["f1"] == pytest.approx((3 * f1[0] + 2 * f1[1]) / 6)
    assert scores["f1_macro"] == pytest.approx(np.mean(f1))
    assert scores["accuracy"] == pytest.approx(4 / 6)


def test_calibration_error_by_hand():
    probabilities = [[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.6, 0.4]]
    labels = [0, 1, 0, 0]
    # Bins at 0.9 (accuracy 0.5) and 0.6 (accuracy 1), half of the clips each.
    expected = 0.5 * abs(0.5 - 0.9) + 0.5 * abs(1 - 0.6)
    error = metrics.expected_calibration_error(labels, probabilities, bins=10)
    assert error == pytest.approx(expected)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
def test_fit_temperature_recovers_a_known_one(temperature):
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (20_000, 5))
    probabilities = metrics.softmax(logits)
    labels = (probabilities.cumsum(axis=1) > rng.random((20_000, 1))).argmax(axis=1)
    found = metrics.fit_temperature(temperature * logits, labels)
    assert found == pytest.approx(temperature, rel=0.05)


@pytest.mark.parametrize("seed", range(20))
def test_the_published_vote_is_that_of_clips_above_a_half(seed):
    rng = np.random.default_rng(seed)
    clips = rng.dirichlet(np.full(3, rng.choice([0.3, 3.0])), rng.integers(1, 8))

    sure = [row for row in clips if max(row) > 0.5]
    assert metrics.vote(clips, above=0.5) == plain_vote(sure or clips)


def test_the_published_vote_may_differ_from_the_majority():
    clips = [[0.4, 0.3, 0.3], [0.4, 0.3, 0.3], [0.1, 0.8, 0.1]]
    assert metrics.vote(clips) == 0
    assert metrics.vote(clips, above=0.5) == 1
