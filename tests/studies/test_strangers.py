import numpy as np

from lca_keras.evaluation.scoring import ClipPredictions
from lca_keras.studies.subjects import strangers
from lca_keras.voices.strangers import DescribedClips


def test_somebody_is_enrolled_by_songs_with_a_voice():
    songs = {f"song {n}": np.arange(2 * n, 2 * n + 2) for n in range(4)}
    prints = np.arange(8.0)[:, None]
    predictions = ClipPredictions(
        np.repeat([0, 1, 0, 0], 2), songs, {}, {"voiceprint": prints}
    )
    # Nobody is heard in song 2, and in song 3 only in its first clip.
    voice = np.array([0.9, 0.9, 0.9, 0.9, 0.1, 0.1, 0.9, 0.1])
    clips = DescribedClips(predictions, voice)
    found = strangers.voiceprints_of(clips, 0, np.random.default_rng(0))
    assert sorted(np.concatenate(found)) == [0.5, 6.0]
