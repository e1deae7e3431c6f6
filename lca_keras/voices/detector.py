"""Tells clips with singing from others, by their voiceprints."""

import dataclasses

import numpy as np

# Probability of singing from which on a clip has a vote.
VOICED = 0.5


@dataclasses.dataclass(frozen=True)
class VoiceDetector:
    """Tells clips with singing from others: a logistic regression.

    Attributes:
        weights: Float32 array `(size,)`, of voiceprints.
        bias: Float.
        heard: What it was taught to tell singing from, for people.
    """

    weights: np.ndarray
    bias: float
    heard: str

    @classmethod
    def fit(cls, with_voice, without, heard):
        """Fits one.

        Args:
            with_voice: Array `(clips, size)` of voiceprints of clips with singing.
            without: The same of others.
            heard: What those others are, for people.
        """
        from sklearn.linear_model import LogisticRegression
        from sklearn.preprocessing import StandardScaler

        values = np.concatenate([with_voice, without]).astype("float64")
        target = np.repeat([1, 0], [len(with_voice), len(without)])
        scaler = StandardScaler().fit(values)
        model = LogisticRegression(class_weight="balanced", max_iter=2000)
        model.fit(scaler.transform(values), target)
        weights = model.coef_[0] / scaler.scale_
        bias = float(model.intercept_[0] - scaler.mean_ @ weights)
        return cls(weights.astype("float32"), bias, heard)

    def __call__(self, voiceprints):
        """Probability of singing, `(clips,)`, of voiceprints `(clips, size)`."""
        logits = np.asarray(voiceprints, "float64") @ self.weights + self.bias
        return 1 / (1 + np.exp(-np.clip(logits, -80, 80)))
