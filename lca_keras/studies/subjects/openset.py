"""Singers whom a model does not know: rejected, enrolled, and told in duets.

Built-in corpora of which some artists are left out of training. Which ones, the seed
draws.
"""

import numpy as np

from lca_keras.base import files
from lca_keras.base.errors import UserError
from lca_keras.corpora import synthesis
from lca_keras.studies import scores
from lca_keras.studies.own_corpora import OwnCorpora
from lca_keras.studies.results import Column, Table
from lca_keras.studies.subjects import strangers, ways

STRANGERS = 5
# Trainings without strangers are compared with one that knows them.
_EVERYONE = "everyone"


class OpenSet(OwnCorpora):
    """Singers who are not known."""

    title = "Nobody of these, somebody new, and who sings when"
    measuring = "Listening to strangers"
    usual = synthesis.SynthesisConfig(artists=20, albums=6, songs=4, seconds=16.0)
    usual_values = (0.5, 0.9)
    usual_variants = ("remix+lca", "remix+lca+aam", "remix+lca+supcon")

    def __init__(self, args, crew):
        super().__init__(args, crew)
        if self.corpus.artists < STRANGERS + 3:
            raise UserError(
                f"--artists must be at least {STRANGERS + 3}: {STRANGERS} are left out"
            )

    def trainings(self):
        """Each variant without strangers, and the first one with them."""
        made, _ = self.write_corpora()
        self.whole = {value: self.laboratory_of(path) for value, path in made.items()}
        trainings = {}
        for value, manifest in made.items():
            for seed in self.seeds:
                known, own = self._without_strangers(manifest, seed)
                there = self.laboratory_of(known)
                everyone = manifest.parent / "split.csv"
                for name, laboratory, variant, path in (
                    (_EVERYONE, self.whole[value], self.variants[0], everyone),
                    *((variant, there, variant, own) for variant in self.variants),
                ):
                    which = (laboratory, variant, seed, path)
                    trainings[value, name, seed] = self.training(*which)
        return trainings

    def _without_strangers(self, manifest, seed):
        """Writes a manifest and a split without the artists whom a seed draws."""
        drawn = np.random.default_rng(seed).permutation(self.corpus.artists)[:STRANGERS]
        names = {self.corpus.artist_name(int(number)) for number in drawn}
        written = []
        for name in ("manifest", "split"):
            rows = files.read_csv(manifest.parent / f"{name}.csv")
            rows = [row for row in rows if row["artist"] not in names]
            path = manifest.parent / f"{name}-without-{seed}.csv"
            files.write_csv(path, list(rows[0]), rows)
            written.append(path)
        return written

    def measurements(self, trained):
        """What each training without strangers makes of these."""
        return {
            (value, name, seed): strangers.cell(
                self.whole[value], self.corpus, each, trained[value, _EVERYONE, seed]
            )
            for (value, name, seed), each in trained.items()
            if name != _EVERYONE
        }

    def show(self, trained, found):
        """The table of the trainings, and that of ways to tell strangers."""
        groups = list(dict.fromkeys(name[:2] for name in found))
        results = {group: self.of_seeds(found, *group) for group in groups}
        seeds = ", ".join(map(str, self.seeds))
        reading = f"Mean, least and most over {len(self.seeds)} draws"
        note = (
            f"{reading} ({seeds}). Enrolled by {strangers.ENROLLED_BY} songs, without "
            "training; F1 of the strangers' test songs, macro; trained: by a training "
            "of the first kind that knows them."
        )
        return {
            "tables": [
                _table(results, note),
                _table_of_ways(results, f"{reading}."),
            ]
        }


class _Draws(scores.Plain):
    """A number of each draw of strangers: its mean, and how far draws are apart."""

    def describe(self):
        """Mean, least and most for people."""
        least, most = min(self.values), max(self.values)
        return f"{self.mean:.3f} [{least:.3f}, {most:.3f}]"


def _table(results, note):
    """The `Table` of all trainings.

    Args:
        results: Dict from (confounding, variant) to the list of the results of seeds.
        note: String.
    """
    sounds = next(iter(results.values()))[0]["sounds"]
    columns = [
        Column("confounding", "confounding", read="{:g}".format),
        Column("training", "variant"),
        Column("AUROC songs", "auroc_songs"),
        Column("clips", "auroc_clips"),
        Column("known songs rejected", "known_rejected"),
        Column("strangers' songs rejected", "strange_rejected"),
        Column("not named, least of five kinds of sound", "sounds"),
        Column("enrolled: F1", "enrolled"),
        Column("trained: F1", "trained"),
        Column("others, before / after", "before", "after"),
        Column("duets, error: alternating / overlapping", "alternating", "overlapping"),
        Column("", *(f"not named: {kind}" for kind in sounds)),
    ]
    rows = []
    for (value, variant), of_seeds in results.items():

        def told(*path, of_seeds=of_seeds):
            return scores.over_seeds(of_seeds, *path, kind=_Draws)

        f1 = told("enrolled")
        rows.append(
            {
                "confounding": value,
                "variant": variant,
                **scores.prefixed("auroc", told("scores", ways.CHOSEN)),
                "known_rejected": told("known", "unknown"),
                "strange_rejected": told("strange", "unknown"),
                "sounds": _Draws([min(each["sounds"].values()) for each in of_seeds]),
                "enrolled": f1.pop("new"),
                **f1,
                **told("duets"),
                **{f"not named: {kind}": v for kind, v in told("sounds").items()},
            }
        )
    return Table.of("openset", "Nobody of these", columns, rows, note)


def _table_of_ways(results, note):
    """The `Table` of the ways to tell strangers."""
    columns = [Column("score", "score")]
    for value, variant in results:
        title = f"{variant}, confounding {value:g}: AUROC songs / clips"
        keys = (f"{variant}_{value:g}_{level}" for level in ("songs", "clips"))
        columns.append(Column(title, *keys))
    rows = []
    for name in next(iter(results.values()))[0]["scores"]:
        row = {"score": name}
        for (value, variant), of_seeds in results.items():
            told = scores.over_seeds(of_seeds, "scores", name, kind=_Draws)
            row |= scores.prefixed(f"{variant}_{value:g}", told)
        rows.append(row)
    return Table.of("openset_scores", "Ways to tell strangers", columns, rows, note)
