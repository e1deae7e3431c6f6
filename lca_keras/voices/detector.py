"""The detector of singing."""

import dataclasses

import numpy as np

# Probability of singing from which on a clip has a vote.
VOICED = 0.5


@dataclasses.dataclass(frozen=True)
class VoiceDetector:
    """Tells clips with singing from others by voiceprints: a logistic regression."""

    weights: np.ndarray  # Float32 `(size,)`.
    bias: float
    heard: str  # What it was taught to tell singing from, for people.

    @classmethod
    def fit(cls, with_voice, without, heard):
        """Fits one to voiceprints `(clips, size)` of clips with singing and without."""
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
