"""Intervals and paired tests of scores over songs and seeds."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Counts:
    """Decisions of one training, song by song: what a bootstrap draws from.

    `songs` are keys; `counts`, an int array `(songs, classes, classes)`, says how often
    decisions about a song by the first class name the second: once for a song's vote,
    as often as it has clips for these.
    """

    songs: tuple[str, ...]
    counts: np.ndarray

    @classmethod
    def of_clips(cls, decisions):
        """Counts of the clips of `lca_keras.evaluation.scoring.Decisions`."""
        songs = decisions.predictions.songs.values()
        places = np.repeat(np.arange(len(songs)), [len(clips) for clips in songs])
        clips = np.concatenate([*songs])
        labels = decisions.predictions.labels[clips]
        return cls._of(decisions, places, labels, decisions.winners[clips])

    @classmethod
    def of_songs(cls, decisions, votes):
        """Counts of the songs of `Decisions`, with `votes` `(songs,)` about them."""
        places = np.arange(len(votes))
        return cls._of(decisions, places, decisions.song_labels, votes)

    @classmethod
    def _of(cls, decisions, places, labels, named):
        classes = decisions.probabilities.shape[1]
        songs = tuple(decisions.predictions.songs)
        counts = np.zeros((len(songs), classes, classes), int)
        np.add.at(counts, (places, labels, named), 1)
        return cls(songs, counts)

    @property
    def f1_of_all(self):
        """Weighted F1 of all songs, each once; a float."""
        return float(self.f1(np.ones((1, len(self.songs))))[0])

    def f1(self, weights):
        """Weighted F1 `(draws,)` where songs count as often as `(draws, songs)` say."""
        classes = self.counts.shape[1]
        flat = self.counts.reshape(len(self.counts), -1)
        matrix = (np.asarray(weights, "float64") @ flat).reshape(-1, classes, classes)
        right = np.einsum("dcc->dc", matrix)
        support, named = matrix.sum(axis=2), matrix.sum(axis=1)
        both = support + named
        each = np.divide(2 * right, both, out=np.zeros_like(both), where=both > 0)
        return (each * support).sum(axis=1) / support.sum(axis=1)


def bootstrap(trainings, other=None, draws=2000):
    """Ends of the 95 % interval of the mean F1 over seeds, or of its lead over another.

    Draws seeds with replacement, and of each drawn seed its test songs; percentiles.
    Where all seeds have the same test songs, these are drawn for all of them alike: a
    song that is hard for one training is hard for the next. With one seed the interval
    is over songs alone.

    `trainings` are the `Counts` of each seed, `other` those of another method, of the
    same seeds and songs: both are drawn alike, which makes the comparison a paired one.

    References:
        - Davison & Hinkley, 1997, Bootstrap methods and their application, section 3.8
          (resampling of groups and within them)
    """
    rng = np.random.default_rng(0)
    same = len({training.songs for training in trainings}) == 1
    shared = _song_weights(rng, len(trainings[0].songs), draws) if same else None
    means = np.zeros(draws)
    for _ in trainings:
        drawn = rng.integers(len(trainings), size=draws)
        for place, training in enumerate(trainings):
            rows = np.flatnonzero(drawn == place)
            if same:
                weights = shared[rows]
            else:
                weights = _song_weights(rng, len(training.songs), len(rows))
            values = training.f1(weights)
            if other is not None:
                values = values - other[place].f1(weights)
            means[rows] += values / len(trainings)
    return tuple(np.quantile(means, [0.025, 0.975]).tolist())


def _song_weights(rng, songs, draws):
    """How often each song comes in a draw with replacement, `(draws, songs)`."""
    return rng.multinomial(songs, np.full(songs, 1 / songs), draws)


def over_seeds(values):
    """Half of a mean's 95 % interval over seeds (Student's t); NaN of one value."""
    from scipy import stats

    if len(values) < 2:
        return float("nan")
    return float(stats.t.ppf(0.975, len(values) - 1) * stats.sem(values))


def paired_p(values, others):
    """p of the paired t-test over seeds; NaN for less than two, or without spread."""
    from scipy import stats

    if len(values) < 2 or np.ptp(np.subtract(values, others)) == 0:
        return float("nan")
    return float(stats.ttest_rel(values, others).pvalue)
