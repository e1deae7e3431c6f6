"""Scores of several seeds, as tables show them and as programs read them."""

import dataclasses
import functools

import numpy as np

from lca_keras.studies import statistics

# What is counted, for people, and its key in tables.
LEVELS = {
    "clips": "clips",
    "songs": "songs",
    "songs, published vote": "songs_published_vote",
}
READING = (
    "Weighted F1: average over seeds / best seed, [95 % interval of the average: "
    "bootstrap over seeds and over songs within them]; the difference is that of "
    "songs, paired, p of the t-test over seeds."
)
READING_PLAIN = "mean ± half of the 95 % interval over seeds (Student's t)."


@dataclasses.dataclass(frozen=True)
class Plain:
    """A number of each seed that is no F1: its mean, and the interval over seeds."""

    values: list[float]

    @property
    def mean(self):
        """Mean over seeds."""
        return float(np.mean(self.values))

    def describe(self):
        """The number for people."""
        half = statistics.over_seeds(self.values)
        return f"{self.mean:.3f}" + ("" if np.isnan(half) else f" ± {half:.3f}")

    def _numbers(self):
        return {"mean": self.mean}

    def record(self, prefix):
        """Its numbers by name."""
        half = statistics.over_seeds(self.values)
        numbers = {**self._numbers(), "t_half_width": half}
        by_seed = " ".join(f"{value:.6f}" for value in self.values)
        return {**_named(prefix, numbers), f"{prefix}_by_seed": by_seed}


@dataclasses.dataclass(frozen=True)
class Score(Plain):
    """Weighted F1 of one level, of several seeds, and what each was counted from."""

    counts: list[statistics.Counts]

    @property
    def best(self):
        """That of the best seed."""
        return max(self.values)

    @functools.cached_property
    def interval(self):
        """Lower and upper end of the mean's 95 % interval."""
        return statistics.bootstrap(self.counts)

    def describe(self):
        """The score for people."""
        low, high = self.interval
        return f"{self.mean:.3f} / {self.best:.3f} [{low:.3f}, {high:.3f}]"

    def _numbers(self):
        low, high = self.interval
        return {"mean": self.mean, "best": self.best, "low": low, "high": high}


@dataclasses.dataclass(frozen=True)
class Lead:
    """How far a score is ahead of another one, of the same seeds and songs."""

    mean: float
    low: float
    high: float
    p: float

    @classmethod
    def of(cls, score, other):
        """The lead of a `Score` over another."""
        low, high = statistics.bootstrap(score.counts, other.counts)
        mean = score.mean - other.mean
        return cls(mean, low, high, statistics.paired_p(score.values, other.values))

    def describe(self):
        """The lead for people."""
        p = "" if np.isnan(self.p) else f", p = {self.p:.3f}"
        if self.p < 0.0005:
            p = ", p < 0.001"
        return f"{self.mean:+.3f} [{self.low:+.3f}, {self.high:+.3f}]{p}"

    def record(self, prefix):
        """Its numbers by name."""
        return _named(prefix, dataclasses.asdict(self))


def _named(prefix, numbers):
    """Floats for JSON and CSV: rounded, and `None` where there is none."""
    return {
        f"{prefix}_{name}": None if np.isnan(value) else round(float(value), 6)
        for name, value in numbers.items()
    }


def scores(trained, branch="logits"):
    """Dict from the names in `LEVELS` to `Score`, of `Trained`, one for each seed."""
    return scores_of([each.predictions.decide(branch) for each in trained])


def scores_of(decisions):
    """The same of `lca_keras.evaluation.scoring.Decisions`, one for each seed."""
    of_songs = statistics.Counts.of_songs
    by_level = (
        [statistics.Counts.of_clips(each) for each in decisions],
        [of_songs(each, each.votes) for each in decisions],
        [of_songs(each, each.published_votes) for each in decisions],
    )
    return {
        level: Score([each.f1_of_all for each in counts], counts)
        for level, counts in zip(LEVELS, by_level, strict=True)
    }


def over_seeds(results, *path, kind=Plain):
    """A number that the results of seeds, dicts, hold at a path of keys, as a `kind`.

    Where they have a dict there, a dict of these.
    """
    for key in path:
        results = [each[key] for each in results]
    if isinstance(results[0], dict):
        return {key: over_seeds(results, key, kind=kind) for key in results[0]}
    return kind(results)


def compared(found, against, seeds):
    """Rows of a table: scores by level, and how far songs are ahead of another row's.

    `found` is what `scores` returned for each row, `against` the place of the row that
    it is compared with; its own means none.
    """
    rows = []
    for place, (levels, other) in enumerate(zip(found, against, strict=True)):
        row = {"seeds": " ".join(map(str, seeds))}
        row |= {LEVELS[level]: score for level, score in levels.items()}
        if other != place:
            lead = Lead.of(levels["songs"], found[other]["songs"])
            row["songs_minus_baseline"] = lead
        rows.append(row)
    return rows


def prefixed(prefix, values):
    """A dict with a prefix before each of its keys, for a table's row."""
    return {f"{prefix}_{key}": value for key, value in values.items()}


def number_of(seeds):
    """How many seeds there are, and which, for people."""
    kinds = "seed" if len(seeds) == 1 else "seeds"
    return f"{len(seeds)} {kinds} ({', '.join(map(str, seeds))})"
