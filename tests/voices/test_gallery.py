"""Galleries: who is nobody of the singers, and who is added to them."""

import dataclasses
import json

import numpy as np
import pytest

from lca_keras.base import metrics
from lca_keras.voices.detector import VoiceDetector
from lca_keras.voices.gallery import (
    NO_VOICE,
    OK,
    UNKNOWN,
    Gallery,
    fit_gallery,
    judge_closed_set,
    song_scores,
)

SIZE = 12


def songs_of(singers, songs, seed, nuisance=0.0):
    """Voiceprints of singers' songs, four clips each; labels; clips by song.

    With `nuisance` songs differ by so much in one direction that says nothing.
    """
    rng = np.random.default_rng(seed)
    prints, labels, groups = [], [], []
    for label, singer in enumerate(singers):
        for _ in range(songs):
            middle = singer + 0.2 * rng.standard_normal(SIZE)
            middle[0] += nuisance * rng.standard_normal()
            groups.append(len(labels) + np.arange(4))
            labels += [label] * 4
            prints.append(middle + 0.3 * rng.standard_normal((4, SIZE)))
    return np.concatenate(prints).astype("float32"), np.array(labels), groups


def cast(count, seed):
    return np.random.default_rng(seed).standard_normal((count, SIZE))


@pytest.fixture(scope="module")
def gallery():
    singers = cast(6, 0)
    train, validation = songs_of(singers, 10, 1), songs_of(singers, 10, 2)
    return fit_gallery(train[:2], validation[:2], validation[2], 0.05)[0]


def test_known_songs_are_named_and_strangers_are_not(gallery):
    known = songs_of(cast(6, 0), 40, 3)
    scores = song_scores(gallery, known[0], known[2])
    # 240 songs, where 60 have set the threshold.
    assert 0.005 < (scores < gallery.threshold).mean() < 0.15
    strange = songs_of(cast(20, 9), 5, 4)
    scores = song_scores(gallery, strange[0], strange[2])
    assert (scores < gallery.threshold).mean() > 0.8


def test_what_differs_from_song_to_song_is_not_compared():
    singers = cast(6, 0)
    train = songs_of(singers, 10, 1, nuisance=6.0)
    validation = songs_of(singers, 10, 2, nuisance=6.0)
    gallery, _ = fit_gallery(train[:2], validation[:2], validation[2], 0.05)
    test = songs_of(singers, 20, 3, nuisance=6.0)
    means = np.stack([test[0][clips].mean(axis=0) for clips in test[2]])
    truth = np.repeat(np.arange(6), 20)
    said = gallery.similarities(means).argmax(axis=1)
    own = np.stack([train[0][train[1] == n].mean(axis=0) for n in range(6)])
    apart = means[:, None] - own
    plain = np.linalg.norm(apart, axis=2).argmin(axis=1)
    assert (said == truth).mean() > 0.95
    assert (plain == truth).mean() < 0.8


def test_the_threshold_is_of_songs_left_out(gallery):
    """It rejects the share of them that was asked for, by NumPy's quantile."""
    singers = cast(6, 0)
    train, validation = songs_of(singers, 10, 1), songs_of(singers, 10, 2)
    again, (songs, clips) = fit_gallery(train[:2], validation[:2], validation[2], 0.2)
    assert songs.shape == (60,)
    assert clips.shape == (240,)
    assert again.threshold == np.quantile(songs, 0.2)
    assert again.clip_threshold == np.quantile(clips, 0.2)
    # Left out, a song is less similar than it is to a gallery that was fitted on it.
    within = song_scores(gallery, validation[0], validation[2])
    assert np.sort(songs)[:6].mean() < np.sort(within)[:6].mean()


def softmax(values):
    shares = np.exp(values - values.max(axis=-1, keepdims=True))
    return shares / shares.sum(axis=-1, keepdims=True)


def test_a_verdict_step_by_step(gallery):
    rng = np.random.default_rng(5)
    prints = songs_of(cast(6, 0)[2:3], 2, 6)[0]
    extended = gallery.with_singer("New", songs_of(cast(1, 7), 3, 8)[0])
    probabilities = softmax(rng.normal(size=(8, 6))).astype("float32")
    voice = np.array([0.9, 0.2, 0.5, 0.9, 0.9, 0.49, 0.9, 0.9])
    verdict = extended.judge(probabilities, prints, voice)
    voiced = voice >= 0.5
    np.testing.assert_array_equal(verdict.voiced, voiced)

    def unit(values):
        moved = (values - extended.center).astype("float64") @ extended.projection
        return moved / np.linalg.norm(moved, axis=-1, keepdims=True)

    shares = softmax(extended.scale * unit(prints) @ extended.means.T)[:, 6:]
    expected = np.concatenate([probabilities * (1 - shares), shares], axis=1)
    np.testing.assert_allclose(verdict.clips, expected, atol=1e-5)
    np.testing.assert_allclose(
        verdict.probabilities, expected[voiced].mean(axis=0), atol=1e-5
    )
    similarity = unit(prints[voiced].mean(axis=0)) @ extended.means.T
    assert verdict.nearest == similarity.argmax() == 2
    assert verdict.score == pytest.approx(similarity.max(), abs=1e-5)
    assert verdict.status == OK
    assert verdict.singer == metrics.vote(probabilities[voiced])


def test_nobody_sings_and_nobody_is_known(gallery):
    probabilities = np.full((8, 6), 1 / 6, "float32")
    strange = songs_of(-3 * cast(6, 0)[:1], 2, 1)[0]
    verdict = gallery.judge(probabilities, strange, np.ones(8))
    assert verdict.status == UNKNOWN
    assert verdict.score < gallery.threshold
    verdict = gallery.judge(probabilities, strange, np.full(8, 0.49))
    assert (verdict.status, verdict.singer, verdict.nearest) == (NO_VOICE, None, None)
    assert not verdict.probabilities.any()


def test_whoever_is_added_changes_no_answer_but_by_winning(gallery):
    new = songs_of(cast(1, 7), 3, 8)[0]
    extended = gallery.with_singer("New", new)
    rng = np.random.default_rng(1)
    prints, _, groups = songs_of([*cast(6, 0), *cast(1, 7)], 20, 9)
    won = 0
    for clips in groups:
        probabilities = softmax(3 * rng.normal(size=(4, 6))).astype("float32")
        before = gallery.judge(probabilities, prints[clips], np.ones(4))
        after = extended.judge(probabilities, prints[clips], np.ones(4))
        if after.singer == 6:
            won += 1
        else:
            assert after.singer == before.singer
    assert 15 < won < 30
    removed = extended.with_singer("Other", new).without_singer("New")
    assert removed.enrolled == ("Other",)
    np.testing.assert_array_equal(removed.means[-1], extended.means[-1])
    removed = removed.without_singer("Other")
    np.testing.assert_array_equal(removed.means, gallery.means)
    for name in ("center", "projection"):
        np.testing.assert_array_equal(getattr(removed, name), getattr(gallery, name))


def test_galleries_are_kept_to_the_bit(gallery):
    detector = VoiceDetector(np.float32([0.1, -1e-30, 3e8]), 0.3, "noise")
    whole = dataclasses.replace(gallery, detector=detector, enrolled=("Σ 'x'",))
    text = json.dumps(whole.to_dict())
    again = Gallery.from_dict(json.loads(text))
    for name in ("center", "projection", "means"):
        np.testing.assert_array_equal(getattr(again, name), getattr(whole, name))
        assert getattr(again, name).dtype == np.float32
    np.testing.assert_array_equal(again.detector.weights, detector.weights)
    for name in ("scale", "threshold", "clip_threshold", "clip_width", "enrolled"):
        assert getattr(again, name) == getattr(whole, name)
    for broken in ({}, {**whole.to_dict(), "means": [1.0]}, {"center": 3}):
        with pytest.raises(ValueError, match="its gallery cannot be read"):
            Gallery.from_dict(broken)


def test_in_a_closed_set_everybody_is_known(gallery):
    probabilities = softmax(np.eye(6)[[1, 1, 4]] * 2).astype("float32")
    prints = songs_of(-3 * cast(6, 0)[:1], 1, 1)[0][:3]
    told = {"probabilities": probabilities, "voiceprint": prints}
    for known in (None, gallery):
        verdict = judge_closed_set(told, known)
        assert (verdict.status, verdict.singer) == (OK, 1)
        assert verdict.voiced.all()
