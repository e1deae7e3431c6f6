"""The detector of singing."""

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from lca_keras.voices.detector import VoiceDetector


def test_a_detector_is_that_of_scikit_learn():
    rng = np.random.default_rng(0)
    sung = rng.normal(0.5, [1, 5, 0.01], (300, 3))
    others = rng.normal(-0.5, [2, 5, 0.02], (100, 3))
    found = VoiceDetector.fit(sung, others, "x")
    model = make_pipeline(
        StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=2000)
    ).fit(np.concatenate([sung, others]), np.repeat([1, 0], [300, 100]))
    new = rng.normal(0, 1, (50, 3))
    expected = model.predict_proba(new)[:, 1]
    np.testing.assert_allclose(found(new), expected, atol=1e-5)
    assert found(np.full((1, 3), 1e30)).tolist() in ([0.0], [1.0])
