"""Scores of singer identification: pure functions of NumPy arrays."""

import functools

import numpy as np


def vote(clip_probabilities, above=None):
    """Song-level decision: the most frequent clip prediction.

    Ties go to the class with the highest summed probability among those tied.

    Args:
        clip_probabilities: Array `(clips, classes)`, at least one clip.
        above: Optional float. Only clips whose prediction is more probable have a vote;
            all have one if there are none. The papers' vote is that of 0.5.

    Returns:
        Int, class index.
    """
    clip_probabilities = np.asarray(clip_probabilities)
    if above is not None:
        sure = clip_probabilities.max(axis=1) > above
        clip_probabilities = clip_probabilities[sure | ~sure.any()]
    classes = clip_probabilities.shape[1]
    counts = np.bincount(clip_probabilities.argmax(axis=1), minlength=classes)
    sums = clip_probabilities.sum(axis=0, dtype="float64")
    return int(np.argmax(np.where(counts == counts.max(), sums, -np.inf)))


def identification_scores(labels, predictions, num_classes):
    """Agreement of predicted with true artists.

    Args:
        labels: Int array `(n,)`.
        predictions: Int array `(n,)`.
        num_classes: Int.

    Returns:
        Dict with `f1` (weighted, as published), `f1_macro` and `accuracy`, floats.
        A class that occurs in neither array counts in neither average.
    """
    from sklearn.metrics import accuracy_score, f1_score

    # Classes that are absent from a part say nothing about it.
    present = np.intersect1d(np.arange(num_classes), np.union1d(labels, predictions))
    f1 = functools.partial(
        f1_score, labels, predictions, labels=present, zero_division=0
    )
    return {
        "f1": float(f1(average="weighted")),
        "f1_macro": float(f1(average="macro")),
        "accuracy": float(accuracy_score(labels, predictions)),
    }


def expected_calibration_error(labels, probabilities, bins=15):
    """Mean gap between confidence and accuracy, over equal bins of confidence.

    Args:
        labels: Int array `(n,)`.
        probabilities: Array `(n, classes)`.
        bins: Int, number of bins on (0, 1].

    Returns:
        Float in [0, 1].

    References:
        - Guo et al., 2017, https://arxiv.org/abs/1706.04599
    """
    probabilities = np.asarray(probabilities, "float64")
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == np.asarray(labels)
    index = np.ceil(confidence * bins).astype(int)
    error = 0.0
    for number in np.unique(index):
        inside = index == number
        gap = abs(correct[inside].mean() - confidence[inside].mean())
        error += inside.mean() * gap
    return float(error)


def softmax(logits, temperature=1.0):
    """Softmax of `logits / temperature` over the last axis, float64."""
    import scipy.special

    return scipy.special.softmax(np.asarray(logits, "float64") / temperature, axis=-1)


def fit_temperature(logits, labels):
    """Softmax temperature that minimises the negative log-likelihood.

    Args:
        logits: Array `(n, classes)`.
        labels: Int array `(n,)`.

    Returns:
        Float between 0.02 and 50.

    References:
        - Guo et al., 2017, https://arxiv.org/abs/1706.04599
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import logsumexp

    logits = np.asarray(logits, "float64")
    rows = np.arange(len(logits))

    def negative_log_likelihood(log_temperature):
        scaled = logits / np.exp(log_temperature)
        return np.mean(logsumexp(scaled, axis=1) - scaled[rows, labels])

    bounds = (np.log(0.02), np.log(50.0))
    found = minimize_scalar(negative_log_likelihood, bounds=bounds, method="bounded")
    return float(np.exp(found.x))
