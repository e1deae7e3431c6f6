"""The paper's tables: which trainings they compare, and what they score."""

import dataclasses

import numpy as np

from lca_keras.base.errors import UserError
from lca_keras.base.sections import CLIP_SECONDS
from lca_keras.data import catalogue
from lca_keras.studies.laboratory import configure
from lca_keras.studies.results import Column, Table
from lca_keras.studies.scores import LEVELS, READING, compared, number_of, scores
from lca_keras.studies.study import Study, has_vocals, list_songs

# Published for artist20, album split, original audio: the mean of three runs, F1 over
# clips and over songs (Lin et al., 2025), of CRNN_FGNL without LCA and with.
PUBLISHED = {
    ("none", 3): (0.52, 0.72),
    ("none", 5): (0.54, 0.73),
    ("none", 10): (0.55, 0.73),
    ("lca", 3): (0.53, 0.74),
    ("lca", 5): (0.56, 0.78),
    ("lca", 10): (0.59, 0.75),
}
TABLES = {
    "table1": "Random and learned counterfactual attention, by terms of the loss",
    "table2": "Two-step training",
    "table3": "Models, lengths of clips, and audio",
    "table4": "Counterfactual and main branch",
}
_BASELINES = {**dict.fromkeys(TABLES, "CRNN_FGNL"), "table4": "main branch"}
_LOSS_TERMS = {
    "main": "CE(y)",
    "effect": "effect",
    "cf": "CE(y~)",
    "ent_cf": "H(y~)",
    "att": "|A − A~|",
    "ent_main": "H(y)",
}


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of a table: one way to train, or one branch of it."""

    labels: tuple[str, ...]  # Its first cells.
    variant: str  # Words as `lca_keras.studies.laboratory.configure` takes them.
    seconds: int
    branch: str = "logits"  # Or "cf_logits".
    against: int = 0  # Index of the row that it is compared with.


def _with_terms(title, variant, used):
    """A row of table 1: its labels mark the terms that are used, from the first on."""
    off = [f"no-{term}" for term in list(_LOSS_TERMS)[used:] if variant == "lca"]
    marks = ["×"] * used + [""] * (len(_LOSS_TERMS) - used)
    return (title, *marks), "+".join([variant, *off])


# Headings; and rows: labels, variant and, if it is another one, the branch.
_ROWS = {
    "table1": (
        ("training", *_LOSS_TERMS.values()),
        (
            _with_terms("CRNN_FGNL", "none", 1),
            _with_terms("with CAL", "cal", 2),
            *(_with_terms("with LCA", "lca", used) for used in range(2, 7)),
        ),
    ),
    "table2": (
        ("training", "two-step"),
        (
            (("CRNN_FGNL", ""), "none"),
            (("with LCA", "no"), "lca+one-step"),
            (("with LCA", "yes"), "lca"),
        ),
    ),
    "table3": (
        ("model",),
        (
            (("CRNN",), "crnn"),
            (("CRNNM",), "crnnm"),
            (("CRNN_FGNL",), "none"),
            (("CRNN_FGNL with LCA",), "lca"),
        ),
    ),
    "table4": (
        ("branch of CRNN_FGNL with LCA",),
        ((("main",), "lca"), (("counterfactual",), "lca", "cf_logits")),
    ),
}


def rows_of(name, lengths, vocals=False):
    """Headings and `Row`s of one of `TABLES`, with clips of `lengths`, seconds.

    `vocals` says whether the voice alone is heard too, in table 3.
    """
    headings, kinds = _ROWS[name]
    # The baseline of LCA is the same network without it.
    plain = [n for n, (_, variant, *_) in enumerate(kinds) if variant == "none"]
    if name == "table3":
        headings = ("audio", "clip", *headings)
    elif len(lengths) > 1:
        headings = ("clip", *headings)
    rows = []
    for audio, word in (("original", ""), ("vocal-only", "+vocals"))[: 1 + vocals]:
        for seconds in lengths:
            baseline = len(rows) + sum(plain)
            for labels, variant, *branch in kinds:
                labels = (audio, f"{seconds} s", *labels)[-len(headings) :]
                about = (labels, variant + word, seconds, *branch)
                rows.append(Row(*about, against=baseline))
    return list(headings), rows


def trainings(rows, config, seeds, separator=None):
    """Dict from (variant, seconds, seed) to the configuration of a training."""
    wanted = {}
    for seed in seeds:  # A table that is cut short has whole seeds.
        for row in rows:
            train = {"seed": seed, "clip_seconds": row.seconds}
            changed = configure(row.variant, config, separator).replace(train=train)
            wanted[row.variant, row.seconds, seed] = changed
    return wanted


class PaperTable(Study):
    """Tables 1 to 4 of the paper."""

    def __init__(self, args, crew):
        super().__init__(args, crew)
        self.title = TABLES[args.name]
        self.source, split_file = self.data()
        self.config = self.configuration(split_file)
        third, lengths = args.name == "table3", [self.config.train.clip_seconds]
        lengths = args.clip_seconds or (CLIP_SECONDS if third else lengths)
        self.notes = []
        vocals = third and self._add_vocals()
        self.headings, self.rows = rows_of(args.name, tuple(lengths), vocals)
        self.settings = self.settings_of(self.source, clip_seconds=list(lengths))

    def _add_vocals(self):
        """Finds the vocals of the corpus; whether there are any."""
        args, songs, changes = self.args, self.source.songs(), {}
        if args.vocals:
            given = {song.key: song.path for song in catalogue.load(args.vocals)}
            found = [(song, given.get(song.key)) for song in songs]
            missing = [song for song, vocals in found if vocals is None]
            if missing:
                raise UserError(
                    f"--vocals {args.vocals}: {len(missing)} of {len(songs)} songs are "
                    f"not there by name, the first is {missing[0].label}"
                )
            changes = list_songs(self.out.absolute() / "songs-with-vocals.csv", found)
        elif args.separator:
            changes = {"separator": self.separator_folder}
        elif not has_vocals(songs):
            self.notes.append(
                "Vocal-only audio is left out: the songs have no vocals_path. Give "
                "--vocals PATH, or --separator."
            )
            self.crew.observer.note(f"note: {self.notes[0]}")
            return False
        self.source = dataclasses.replace(self.source, **changes)
        return True

    def trainings(self):
        """Those of all rows."""
        laboratory = self.laboratory(self.source)
        wanted = trainings(self.rows, self.config, self.seeds, self.separator_id)
        return {name: (laboratory, name[0], each) for name, each in wanted.items()}

    def show(self, trained, found):
        """The table; of table 4 whether the counterfactual stays below."""
        about = (self.args.name, self.headings, self.rows)
        made = build(*about, trained, self.seeds, self.args.published)
        below = [_below(trained)] if self.args.name == "table4" else []
        return {"tables": [made], "notes": self.notes + below}


def build(name, headings, rows, trained, seeds, published):
    """The `Table` of finished trainings, by (variant, seconds, seed).

    `published` says whether to show what was published for artist20 beside it.
    """
    columns = [
        *(Column(heading, heading) for heading in headings),
        Column("", "variant", "seeds"),
        *(Column(f"F1 {level}", key) for level, key in LEVELS.items()),
        Column(f"songs: minus {_BASELINES[name]}", "songs_minus_baseline"),
        Column("parameters", "parameters", read="{:,}".format),
    ]
    keys = ("published_clips", "published_songs")
    if published:
        title = "published for artist20, clips / songs"
        columns.append(Column(title, *keys, read="{:.2f}".format))
    runs = [[trained[r.variant, r.seconds, seed] for seed in seeds] for r in rows]
    found = [scores(each, row.branch) for row, each in zip(rows, runs, strict=True)]
    cells = compared(found, [row.against for row in rows], seeds)
    for row, of_row, cell in zip(rows, runs, cells, strict=True):
        cell |= dict(zip(headings, row.labels, strict=True))
        cell["variant"] = row.variant
        cell["parameters"] = of_row[0].result["parameters"]
        # Of original audio, whole losses and the main branch alone.
        if row.branch == "logits" and (row.variant, row.seconds) in PUBLISHED:
            values = PUBLISHED[row.variant, row.seconds]
            cell |= dict(zip(keys, values, strict=True))
    note = f"{number_of(seeds)}. {READING}"
    return Table.of(name, TABLES[name], columns, cells, note)


def _below(trained):
    """Whether the counterfactual stays below the main branch, a sentence."""
    tests = [run.result["test"] for run in trained.values()]
    signs = [np.sign(test["cf_song"]["f1"] - test["song"]["f1"]) for test in tests]
    return (
        "The counterfactual beside the main branch, F1 over songs of each of the "
        f"{len(signs)} runs: below it in {signs.count(-1)}, level with it in "
        f"{signs.count(0)}, above it in {signs.count(1)}."
    )
