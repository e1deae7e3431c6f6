"""Decisions against plain Python."""

import numpy as np
import pytest

from lca_keras.base import files
from lca_keras.data.store import Record
from lca_keras.evaluation import scoring
from lca_keras.evaluation.scoring import ClipPredictions

SONGS = {"a": [0, 1, 2], "b": [3, 4], "c": [5, 6, 7, 8]}
LABELS = np.array([0, 0, 0, 1, 1, 4, 4, 4, 4])


@pytest.fixture
def predictions():
    rng = np.random.default_rng(1)
    songs = {key: np.array(group) for key, group in SONGS.items()}
    outputs = {name: rng.normal(0, 2, (9, 5)) for name in ("logits", "cf_logits")}
    outputs |= {name: rng.random((9, 4)) for name in ("attention", "cf_attention")}
    numbers = {key: np.arange(len(group)) for key, group in songs.items()}
    return ClipPredictions(LABELS, songs, numbers, outputs)


@pytest.mark.parametrize("branch", ["logits", "cf_logits"])
def test_songs_are_decided_by_their_own_clips(predictions, branch):
    decisions = predictions.decide(branch, temperature=2.0)
    logits = predictions.outputs[branch] / 2
    odds = np.exp(logits)
    expected = odds / odds.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(decisions.probabilities, expected)
    assert decisions.song_labels.tolist() == [0, 1, 4]
    for row, group in enumerate(SONGS.values()):
        mean = sum(expected[index] for index in group) / len(group)
        np.testing.assert_allclose(decisions.means[row], mean)
        winners = [int(logits[index].argmax()) for index in group]
        most = max(map(winners.count, winners))
        tied = {name for name in winners if winners.count(name) == most}
        assert decisions.votes[row] == max(tied, key=lambda name: mean[name])


def test_top_3_is_whether_two_at_most_are_more_probable(predictions):
    decisions = predictions.decide()
    scores = decisions.scores
    for level, truth, values in (
        ("frame", LABELS, decisions.probabilities),
        ("song", [0, 1, 4], decisions.means),
    ):
        ranks = [sum(row > row[name]) for row, name in zip(values, truth, strict=True)]
        assert scores[level]["top3_accuracy"] == np.mean([rank < 3 for rank in ranks])
        assert scores[level]["count"] == len(truth)
        assert "top5_accuracy" not in scores[level]  # Of five classes it is 1.


def test_attention_distance_is_the_mean_of_absolute_differences(predictions):
    both = predictions.outputs["attention"], predictions.outputs["cf_attention"]
    total = sum(abs(a - b) for a, b in zip(*map(np.ravel, both), strict=True))
    assert predictions.attention_distance == pytest.approx(total / 36)
    plain = ClipPredictions(LABELS, {}, {}, {"logits": predictions.outputs["logits"]})
    assert plain.attention_distance is None


def test_what_is_written_names_clips_and_songs(predictions, tmp_path):
    records = {key: Record("A", "B", key, "", 0, 0.0, "", ()) for key in SONGS}
    decisions = predictions.decide()
    part = scoring.Evaluation(decisions, decisions.scores)
    scoring.write_part(tmp_path, "test", part, list("vwxyz"), records)
    rows = files.read_csv(tmp_path / "predictions_test_frame.csv")
    assert [(row["song"], int(row["clip"])) for row in rows] == [
        (key, clip) for key, group in SONGS.items() for clip in range(len(group))
    ]
    assert [row["predicted"] for row in rows] == ["vwxyz"[w] for w in decisions.winners]
    rows = files.read_csv(tmp_path / "predictions_test_song.csv")
    assert [row["predicted"] for row in rows] == ["vwxyz"[v] for v in decisions.votes]
    assert [row["correct"] for row in rows] == [
        str(int(vote == truth))
        for vote, truth in zip(decisions.votes, [0, 1, 4], strict=True)
    ]
