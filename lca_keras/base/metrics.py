"""Scores of singer identification: pure functions of NumPy arrays."""

import functools

import numpy as np


def vote(clip_probabilities, above=None):
    """Song-level decision, a class index: the most frequent clip prediction.

    Ties go to the class with the highest summed probability among those tied.
    `clip_probabilities` are `(clips, classes)`, at least one clip. With `above`, only
    clips whose prediction is more probable have a vote; all have one if there are none.
    The papers' vote is that of 0.5.
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
    """Agreement of predicted with true artists, int arrays `(n,)`.

    A dict with `f1` (weighted, as published), `f1_macro` and `accuracy`. A class that
    occurs in neither array counts in neither average.
    """
    from sklearn.metrics import accuracy_score, f1_score

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

    Of int labels `(n,)` and probabilities `(n, classes)`: a float in [0, 1], as in Guo
    et al., 2017, https://arxiv.org/abs/1706.04599
    """
    probabilities = np.asarray(probabilities, "float64")
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == np.asarray(labels)
    index = np.ceil(confidence * bins).astype(int)
    gaps = np.bincount(index, correct - confidence)  # Summed in each bin.
    return float(np.abs(gaps).sum() / len(correct))


def softmax(logits, temperature=1.0):
    """Softmax of `logits / temperature` over the last axis, float64."""
    import scipy.special

    return scipy.special.softmax(np.asarray(logits, "float64") / temperature, axis=-1)


def fit_temperature(logits, labels):
    """Softmax temperature that minimises the negative log-likelihood.

    Of logits `(n, classes)` and int labels `(n,)`: a float between 0.02 and 50, as in
    Guo et al., 2017, https://arxiv.org/abs/1706.04599
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
