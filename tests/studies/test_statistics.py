import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import f1_score

from lca_keras.evaluation.scoring import ClipPredictions
from lca_keras.studies import statistics
from lca_keras.studies.statistics import Counts

CLASSES = 4


def decisions(seed, songs=30, skill=1.5, names="song"):
    """`Decisions` about songs of one to five clips by random logits."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 6, songs)
    singers = rng.integers(0, CLASSES, songs)
    labels = np.repeat(singers, sizes)
    logits = rng.normal(size=(len(labels), CLASSES))
    logits[np.arange(len(labels)), labels] += skill
    groups = np.split(np.arange(len(labels)), np.cumsum(sizes)[:-1])
    keys = [f"{names} {number}" for number in range(songs)]
    songs = dict(zip(keys, groups, strict=True))
    starts = {key: np.arange(len(group)) for key, group in songs.items()}
    return ClipPredictions(labels, songs, starts, {"logits": logits}).decide()


def sampled_f1(found, chosen):
    """F1 over clips of some songs, song by song."""
    groups = list(found.predictions.songs.values())
    clips = np.concatenate([groups[index] for index in chosen])
    labels, winners = found.predictions.labels[clips], found.winners[clips]
    return f1_score(labels, winners, average="weighted", zero_division=0)


def test_f1_of_weighted_songs_is_that_of_songs_that_come_so_often():
    found = decisions(0)
    weights = np.random.default_rng(1).integers(0, 4, (5, 30))
    counts = Counts.of_clips(found)
    expected = [sampled_f1(found, np.repeat(np.arange(30), row)) for row in weights]
    np.testing.assert_allclose(counts.f1(weights), expected)
    songs = Counts.of_songs(found, found.votes)
    expected = [
        f1_score(
            np.repeat(found.song_labels, row),
            np.repeat(found.votes, row),
            average="weighted",
            zero_division=0,
        )
        for row in weights
    ]
    np.testing.assert_allclose(songs.f1(weights), expected)


def test_one_seed_has_the_interval_that_scipy_gives():
    found = decisions(2)

    def f1(chosen):
        return sampled_f1(found, chosen)

    expected = stats.bootstrap(
        (np.arange(30),),
        f1,
        method="percentile",
        vectorized=False,
        n_resamples=2000,
        rng=np.random.default_rng(3),
    ).confidence_interval
    ours = statistics.bootstrap([Counts.of_clips(found)], draws=8000)
    np.testing.assert_allclose(ours, expected, atol=0.012)


def test_songs_that_all_seeds_share_are_drawn_for_all_alike():
    found = Counts.of_clips(decisions(4))
    alone = np.diff(statistics.bootstrap([found]))
    # Five trainings that decide alike know nothing more of other songs than one.
    same = np.diff(statistics.bootstrap([found] * 5))
    np.testing.assert_allclose(same, alone, rtol=0.1)
    # Five test sets do, by the root of five.
    others = [decisions(4, names=f"of seed {seed}") for seed in range(5)]
    apart = np.diff(statistics.bootstrap([Counts.of_clips(each) for each in others]))
    np.testing.assert_allclose(apart, alone / np.sqrt(5), rtol=0.15)


def test_seeds_that_differ_widen_the_interval_as_scipy_says():
    # So many songs that they hardly matter: what is left are the seeds.
    found = [
        decisions(seed, songs=3000, skill=skill, names=seed)
        for seed, skill in enumerate((0.0, 0.7, 1.4, 2.1, 2.8))
    ]
    values = [sampled_f1(each, np.arange(3000)) for each in found]
    expected = stats.bootstrap(
        (values,), np.mean, method="percentile", rng=np.random.default_rng(0)
    ).confidence_interval
    ours = statistics.bootstrap([Counts.of_clips(each) for each in found])
    np.testing.assert_allclose(ours, expected, atol=0.02)


def test_the_lead_over_another_method_is_paired():
    found = [Counts.of_clips(decisions(seed, skill=1.0)) for seed in range(3)]
    assert statistics.bootstrap(found, found) == (0.0, 0.0)
    better = [Counts.of_clips(decisions(seed, skill=2.0)) for seed in range(3)]
    low, high = statistics.bootstrap(better, found)
    assert 0 < low < high
    unpaired = np.subtract(
        statistics.bootstrap(better), statistics.bootstrap(found)[::-1]
    )
    assert high - low < np.diff(unpaired)[0]


def test_over_seeds_and_paired_test_are_scipys():
    values, others = [0.71, 0.78, 0.69, 0.8, 0.75], [0.7, 0.7, 0.71, 0.72, 0.7]
    mean = np.mean(values)
    interval = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert statistics.over_seeds(values) == pytest.approx(interval.high - mean)
    expected = stats.ttest_1samp(np.subtract(values, others), 0).pvalue
    assert statistics.paired_p(values, others) == pytest.approx(expected)
    assert np.isnan(statistics.over_seeds([0.5]))
    assert np.isnan(statistics.paired_p([0.5], [0.4]))
    assert np.isnan(statistics.paired_p([0.5, 0.6], [0.5, 0.6]))
