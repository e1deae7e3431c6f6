"""The paper's tables: which trainings they compare, and how scores become rows."""

import dataclasses
import functools

import numpy as np

from lca_keras.base.sections import CLIP_SECONDS
from lca_keras.studies import statistics
from lca_keras.studies.laboratory import configure
from lca_keras.studies.results import Table

LEVELS = ("clips", "songs", "songs, published vote")
# Published for artist20, album split, original audio: the mean of three runs, F1 over
# clips and over songs (Lin et al., 2025).
PUBLISHED = {
    ("crnn_fgnl", 3): (0.52, 0.72),
    ("crnn_fgnl", 5): (0.54, 0.73),
    ("crnn_fgnl", 10): (0.55, 0.73),
    ("crnn_fgnl+lca", 3): (0.53, 0.74),
    ("crnn_fgnl+lca", 5): (0.56, 0.78),
    ("crnn_fgnl+lca", 10): (0.59, 0.75),
}
READING = (
    "Weighted F1: average over seeds / best seed, [95 % interval of the average: "
    "bootstrap over seeds and over songs within them]; the difference is that of "
    "songs, paired, p of the t-test over seeds."
)


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of a table: one way to train, or one branch of it.

    Attributes:
        labels: Tuple of strings, the row's first cells.
        variant: Words as `lca_keras.studies.laboratory.configure` takes them.
        seconds: Int, length of a clip.
        branch: `"logits"` or `"cf_logits"`.
        against: Index of the row that it is compared with, or `None`.
    """

    labels: tuple[str, ...]
    variant: str
    seconds: int
    branch: str = "logits"
    against: int | None = 0


_LOSS_TERMS = {
    "main": "CE(y)",
    "effect": "effect",
    "cf": "CE(y~)",
    "ent_cf": "H(y~)",
    "att": "|A − A~|",
    "ent_main": "H(y)",
}


def table1(seconds):
    """CRNN_FGNL, with random attention, and with LCA term by term.

    Returns:
        Tuple of headings and list of `Row`.
    """
    mark, terms = "×", list(_LOSS_TERMS)
    rows = [
        Row(("CRNN_FGNL", mark, *[""] * 5), "none", seconds),
        Row(("with CAL", mark, mark, *[""] * 4), "cal", seconds),
    ]
    for used in range(2, len(terms) + 1):
        marks = [mark if place < used else "" for place in range(len(terms))]
        off = [f"no-{term}" for term in terms[used:]]
        rows.append(Row(("with LCA", *marks), "+".join(["lca", *off]), seconds))
    return ["training", *_LOSS_TERMS.values()], rows


def table2(seconds):
    """LCA with two-step training and without; see `table1`."""
    return ["training", "two-step"], [
        Row(("CRNN_FGNL", ""), "none", seconds),
        Row(("with LCA", "no"), "lca+one-step", seconds),
        Row(("with LCA", "yes"), "lca", seconds),
    ]


_MODELS = {
    "CRNN": "crnn",
    "CRNNM": "crnnm",
    "CRNN_FGNL": "none",
    "CRNN_FGNL with LCA": "lca",
}


def table3(lengths, vocals):
    """Four models, lengths of clips, and kinds of audio; see `table1`.

    Args:
        lengths: Ints, seconds of a clip.
        vocals: Whether the voice alone is heard too.
    """
    rows = []
    kinds = {"original": "", "vocal-only": "+vocals"}
    for audio, word in list(kinds.items())[: 1 + vocals]:
        for seconds in lengths:
            # The baseline of LCA is the same network without it.
            baseline = len(rows) + list(_MODELS).index("CRNN_FGNL")
            for name, variant in _MODELS.items():
                labels = (audio, f"{seconds} s", name)
                rows.append(Row(labels, variant + word, seconds, against=baseline))
    return ["audio", "clip", "model"], rows


def table4(seconds):
    """The counterfactual against the main branch; see `table1`."""
    return ["branch of CRNN_FGNL with LCA"], [
        Row(("main",), "lca", seconds),
        Row(("counterfactual",), "lca", seconds, branch="cf_logits"),
    ]


TABLES = {
    "table1": "Random and learned counterfactual attention, by terms of the loss",
    "table2": "Two-step training",
    "table3": "Models, lengths of clips, and audio",
    "table4": "Counterfactual and main branch",
}

_BASELINES = {**dict.fromkeys(TABLES, "CRNN_FGNL"), "table4": "main branch"}


def rows_of(name, lengths, vocals=False):
    """Headings and rows of a table by its name, for lengths of clips in seconds."""
    if name == "table3":
        return table3(lengths, vocals)
    build = {"table1": table1, "table2": table2, "table4": table4}[name]
    if len(lengths) == 1:
        return build(lengths[0])
    rows = []
    for seconds in lengths:
        headings, more = build(seconds)
        first = len(rows)
        for row in more:
            against = row.against + first
            labels = (f"{seconds} s", *row.labels)
            rows.append(dataclasses.replace(row, labels=labels, against=against))
    return ["clip", *headings], rows


def default_lengths(name, config):
    """Lengths of clips where none are asked for."""
    return CLIP_SECONDS if name == "table3" else (config.train.clip_seconds,)


def trainings(rows, config, seeds, separator=None):
    """Dict from (variant, seconds, seed) to the configuration of a training."""
    wanted = {}
    for seed in seeds:  # A table that is cut short has whole seeds.
        for row in rows:
            train = {"seed": seed, "clip_seconds": row.seconds}
            changed = configure(row.variant, config, separator).replace(train=train)
            wanted[row.variant, row.seconds, seed] = changed
    return wanted


# === Scores ===


@dataclasses.dataclass(frozen=True)
class Score:
    """Weighted F1 of one level, of several seeds.

    Attributes:
        values: List of floats, one for each seed.
        counts: List of `lca_keras.studies.statistics.Counts`, the same.
    """

    values: list[float]
    counts: list[statistics.Counts]

    @property
    def mean(self):
        """Mean over seeds."""
        return float(np.mean(self.values))

    @property
    def best(self):
        """That of the best seed."""
        return float(np.max(self.values))

    @functools.cached_property
    def interval(self):
        """Lower and upper end of the mean's 95 % interval."""
        return statistics.bootstrap(self.counts)

    def describe(self):
        """The score for people."""
        low, high = self.interval
        return f"{self.mean:.3f} / {self.best:.3f} [{low:.3f}, {high:.3f}]"

    def record(self, prefix):
        """The score's numbers by name."""
        low, high = self.interval
        return {
            f"{prefix}_mean": number(self.mean),
            f"{prefix}_best": number(self.best),
            f"{prefix}_low": number(low),
            f"{prefix}_high": number(high),
            f"{prefix}_t_half_width": number(statistics.over_seeds(self.values)),
            f"{prefix}_by_seed": " ".join(f"{value:.6f}" for value in self.values),
        }


def scores(trained, branch="logits"):
    """Dict from the names in `LEVELS` to `Score`.

    Args:
        trained: List of `lca_keras.studies.laboratory.Trained`, one for each seed.
        branch: `"logits"` or `"cf_logits"`.
    """
    decisions = [each.predictions.decide(branch) for each in trained]
    return scores_of(decisions)


def scores_of(decisions):
    """The same of `lca_keras.evaluation.scoring.Decisions`, one for each seed."""
    found = {level: ([], []) for level in LEVELS}
    for each in decisions:
        of_songs = statistics.Counts.of_songs
        level_counts = (
            statistics.Counts.of_clips(each),
            of_songs(each, each.votes),
            of_songs(each, each.published_votes),
        )
        for level, counts in zip(LEVELS, level_counts, strict=True):
            values, kept = found[level]
            values.append(float(counts.f1(np.ones((1, len(counts.songs))))[0]))
            kept.append(counts)
    return {level: Score(*lists) for level, lists in found.items()}


@dataclasses.dataclass(frozen=True)
class Plain:
    """A number of each seed that is no F1: its mean, and the interval over seeds."""

    values: list[float]

    def describe(self):
        """The number for people."""
        mean, half = np.mean(self.values), statistics.over_seeds(self.values)
        return f"{mean:.3f}" + ("" if np.isnan(half) else f" ± {half:.3f}")

    def record(self, prefix):
        """Its numbers by name."""
        return {
            f"{prefix}_mean": number(np.mean(self.values)),
            f"{prefix}_t_half_width": number(statistics.over_seeds(self.values)),
            f"{prefix}_by_seed": " ".join(f"{value:.6f}" for value in self.values),
        }


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
        values = dataclasses.asdict(self)
        return {f"{prefix}_{name}": number(value) for name, value in values.items()}


def build(name, headings, rows, trained, seeds, published=False):
    """The `Table` of finished trainings.

    Args:
        name: Of `TABLES`.
        headings: List of strings, of the rows' labels.
        rows: List of `Row`.
        trained: Dict from (variant, seconds, seed) to `Trained`.
        seeds: List of ints.
        published: Whether to show what was published for artist20 beside it.
    """
    columns = [*headings, *(f"F1 {level}" for level in LEVELS)]
    columns.append(f"songs: minus {_BASELINES[name]}")
    columns.append("parameters")
    if published:
        columns.append("published for artist20, clips / songs")
    found, cells, records = [], [], []
    for row in rows:
        runs = [trained[row.variant, row.seconds, seed] for seed in seeds]
        found.append(scores(runs, row.branch))
    for row, row_scores in zip(rows, found, strict=True):
        runs = [trained[row.variant, row.seconds, seed] for seed in seeds]
        parameters = runs[0].result["parameters"]
        line = [*row.labels, *(row_scores[level].describe() for level in LEVELS)]
        record = dict(zip(headings, row.labels, strict=True))
        record |= {"variant": row.variant, "seeds": " ".join(map(str, seeds))}
        for level in LEVELS:
            record |= row_scores[level].record(_key(level))
        lead, baseline = "", row.against
        if baseline is not None and rows[baseline] is not row:
            ahead = Lead.of(row_scores["songs"], found[baseline]["songs"])
            lead = ahead.describe()
            record |= ahead.record("songs_minus_baseline")
        line += [lead, f"{parameters:,}"]
        record["parameters"] = parameters
        if published:
            values = PUBLISHED.get((_published_name(row), row.seconds))
            line.append("{:.2f} / {:.2f}".format(*values) if values else "")
            if values:
                record["published_clips"], record["published_songs"] = values
        cells.append(line)
        records.append(record)
    kinds = "seed" if len(seeds) == 1 else "seeds"
    note = f"{len(seeds)} {kinds} ({', '.join(map(str, seeds))}). {READING}"
    return Table(name, TABLES[name], columns, cells, records, note)


def number(value):
    """A float for JSON and CSV: rounded, and `None` where there is none."""
    return None if np.isnan(value) else round(float(value), 6)


def _key(level):
    return level.replace(", ", "_").replace(" ", "_")


def _published_name(row):
    """The key in `PUBLISHED` of a row: of original audio and whole losses alone."""
    if row.branch != "logits":
        return None
    return {"none": "crnn_fgnl", "lca": "crnn_fgnl+lca"}.get(row.variant)
