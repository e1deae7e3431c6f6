"""Singers whom a model does not know: rejected, enrolled, and told in duets.

Built-in corpora of which some artists are left out of training. Which ones, the seed
draws.
"""

import dataclasses
import functools
import pathlib

import numpy as np

from lca_keras.base import files
from lca_keras.base.errors import UserError
from lca_keras.corpora import synthesis
from lca_keras.studies import scores
from lca_keras.studies.results import Column, Table
from lca_keras.studies.study import OwnCorpora
from lca_keras.studies.subjects import sounds, ways
from lca_keras.voices import strangers

STRANGERS = 5
# Songs that somebody is enrolled by.
ENROLLED_BY = 3
# Trainings without strangers are compared with one that knows them.
_EVERYONE = "everyone"


class Strangers(OwnCorpora):
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
                about = (self.variants[0], seed, manifest.parent / "split.csv")
                everyone = self.training(self.whole[value], *about)
                trainings[value, _EVERYONE, seed] = everyone
                for name in self.variants:
                    training = self.training(there, name, seed, own)
                    trainings[value, name, seed] = training
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
        cells = {}
        for (value, name, seed), each in trained.items():
            if name != _EVERYONE:
                everyone = trained[value, _EVERYONE, seed]
                settings = {"training": each.result, "everyone": everyone.result}
                about = (self.whole[value], self.corpus, each, everyone)
                job = functools.partial(_measure, *about)
                cells[value, name, seed] = each.folder / "strangers", settings, job
        return cells

    def show(self, trained, found):
        """The table of the trainings, and that of ways to tell strangers."""
        results = {name[:2]: self.of_seeds(found, *name[:2]) for name in found}
        seeds = ", ".join(map(str, self.seeds))
        reading = f"Mean, least and most over {len(self.seeds)} draws"
        note = (
            f"{reading} ({seeds}). Enrolled by {ENROLLED_BY} songs, without training; "
            "F1 of the strangers' test songs, macro; trained: by a training of the "
            "first kind that knows them."
        )
        both = [_table(results, note), _table_of_ways(results, f"{reading}.")]
        return {"tables": both}


class _Draws(scores.Plain):
    """A number of each draw of strangers: its mean, and how far draws are apart."""

    def describe(self):
        """Mean, least and most for people."""
        least, most = min(self.values), max(self.values)
        return f"{self.mean:.3f} [{least:.3f}, {most:.3f}]"


def _table(results, note):
    """The `Table` of all trainings: `results` of seeds by confounding and variant."""
    kinds = next(iter(results.values()))[0]["sounds"]
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
        Column("", *(f"not named: {kind}" for kind in kinds)),
    ]
    rows = []
    for (value, variant), of_seeds in results.items():
        told = functools.partial(scores.over_seeds, of_seeds, kind=_Draws)
        f1 = told("enrolled")
        row = {
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
        rows.append(row)
    return Table.of("strangers", "Nobody of these", columns, rows, note)


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
    return Table.of("strangers_scores", "Ways to tell strangers", columns, rows, note)


# === Measured ===


def _measure(laboratory, corpus, trained, everyone):
    config, model = trained.config, trained.model()
    network, temperature = model.backbone, model.temperature
    split = {"file": everyone.config.split.file}
    sources, artists = laboratory.sources(config.replace(split=split))
    strange = [name for name in artists if name not in trained.artists]

    def of(part, names, **changes):
        """The songs of some artists, whose places are the labels."""
        labels = {
            key: names.index(artists[label])
            for key, label in sources[part].labels.items()
            if artists[label] in names
        }
        return dataclasses.replace(sources[part], labels=labels, **changes)

    known = {part: of(part, trained.artists) for part in sources}
    how = (config.gallery.false_alarm, config.train.seed)
    gallery, _, detector = strangers.fit(network, known, *how)
    heard = {}
    for part in sources:
        unknown = of(part, strange, hop_frames=None)
        for kind, source in (("known", known[part]), ("strange", unknown)):
            found = strangers.describe_clips(network, source, gallery.detector)
            heard[kind, part] = found
    unseen = [heard["strange", part] for part in sources]

    def shares(*several):
        found = {}
        for each in several:
            found |= strangers.verdicts(gallery, each, temperature)
        return strangers.shares(found)

    root = pathlib.Path(laboratory.source.data).parent
    return {
        "detector": detector,
        "scores": ways.compare(heard, unseen),
        "known": shares(heard["known", "test"]),
        "strange": shares(*unseen),
        "enrolled": _enrolled(gallery, heard, temperature, strange, trained, everyone),
        **sounds.measure(trained, model, gallery, corpus, root),
    }


def _enrolled(gallery, heard, temperature, strange, trained, everyone):
    """F1 of strangers who are enrolled by a few songs, and what others lose.

    Nobody is unknown here, as in the training with everyone that it is compared to.
    `new` is the mean F1 of the strangers once enrolled, `trained` that of the training
    with all artists, `before` and `after` those of known singers on their test songs.
    """
    rng = np.random.default_rng(trained.config.train.seed)
    closed = extended = dataclasses.replace(gallery, threshold=-1.0)
    for number, name in enumerate(strange):
        prints = voiceprints_of(heard["strange", "train"], number, rng)
        extended = extended.with_singer(name, prints)

    def named(gallery, one, offset=0):
        """Arrays `(songs,)`, true places of the singers and those that are said."""
        told = strangers.verdicts(gallery, one, temperature).values()
        said = [-1 if each.singer is None else each.singer for each in told]
        return one.predictions.decide().song_labels + offset, np.array(said)

    count = len(trained.artists)
    known, new = range(count), range(count, count + len(strange))
    before = named(closed, heard["known", "test"])
    after = named(extended, heard["known", "test"])
    added = named(extended, heard["strange", "test"], count)
    everybody = map(np.concatenate, zip(after, added, strict=True))
    decisions = everyone.predictions.decide()
    places = [everyone.artists.index(name) for name in strange]
    return {
        "new": _f1(*everybody, new),
        "trained": _f1(decisions.song_labels, decisions.votes, places),
        "before": _f1(*before, known),
        "after": _f1(*after, known),
    }


def voiceprints_of(clips, label, rng):
    """Mean voiceprints of a few songs in `DescribedClips` by the singer with a label.

    Of clips with voice alone. Songs without any are not drawn: with one NaN in a
    gallery, every song is nearest to that.
    """
    labels = clips.predictions.labels
    own = [song for song in clips.songs if labels[song[0]] == label]
    drawn = rng.permutation(len(own))[:ENROLLED_BY]
    return [clips.voiceprints[own[place]].mean(axis=0) for place in drawn]


def _f1(truth, said, classes):
    from sklearn.metrics import f1_score

    how = {"average": "macro", "zero_division": 0}
    return float(f1_score(truth, said, labels=list(classes), **how))
