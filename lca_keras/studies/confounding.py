"""With the confounder known and controlled: what turns a model to the voice?

Built-in corpora whose bands tell the singer in training, more or less, and test songs
whose band is the singer's own, anybody's, or another singer's.
"""

import dataclasses
import pathlib

import numpy as np

from lca_keras.corpora import synthesis
from lca_keras.evaluation import scoring, voice_report
from lca_keras.explanation import saliency
from lca_keras.studies import pictures, tables
from lca_keras.studies.laboratory import contents, load_predictions, save_predictions
from lca_keras.studies.noise import ActivationShares, without_map
from lca_keras.studies.results import Picture, Table

# One that remixing does not solve within a few epochs.
CORPUS = synthesis.SynthesisConfig(
    artists=12, albums=4, songs=5, seconds=12.1, voice_db=3.0
)
VALUES = (0.0, 0.5, 0.9, 1.0)
VARIANTS = ("none", "cal", "lca", "remix", "remix+lca", "crnn", "vocals")
# Whose band plays in test songs.
BANDS = {
    "own": "the singer's own, as in training",
    "any": "anybody's",
    "other": "another singer's",
}


def corpus_of(out, settings, value, progress=None):
    """Writes the corpus of a confounding, with stems; returns its manifest."""
    folder = pathlib.Path(out, "corpora", f"confounding-{value:g}")
    corpus = dataclasses.replace(settings, confounding=value)
    synthesis.write_corpus(corpus, folder, stems=True, progress=progress)
    return folder / "manifest.csv"


def corpus_with_bands(out, settings, bands, progress=None):
    """Writes the test songs with bands of `synthesis.TEST_BANDS`; their manifest.

    They are the same whatever the confounding in training.
    """
    folder = pathlib.Path(out, "corpora", f"test-{bands}")
    corpus = dataclasses.replace(settings, confounding=0.0, test_bands=bands)
    arguments = {"stems": True, "progress": progress, "parts": ("test",)}
    synthesis.write_corpus(corpus, folder, **arguments)
    return folder / "manifest.csv"


@dataclasses.dataclass(frozen=True)
class Listening:
    """What a training makes of test songs with these bands and those.

    Attributes:
        laboratories: Dict from the names in `BANDS` to a
            `lca_keras.studies.laboratory.Laboratory` with such test songs.
    """

    laboratories: dict

    def cell(self, trained):
        """The arguments of `lca_keras.workflow.cells.cell` for a `Trained`."""
        folder = trained.folder / "confounding"
        songs = {bands: contents(self._source(bands, trained)) for bands in BANDS}
        settings = {"training": trained.result, "songs": songs}
        return folder, settings, lambda: self._listen(trained, folder)

    def _source(self, bands, trained):
        return self.laboratories[bands].tested(trained.config, trained.artists)

    def _listen(self, trained, folder):
        model, config = trained.model(), trained.config
        for bands in BANDS:
            predictions = scoring.Predictor(self._source(bands, trained))(model)
            save_predictions(folder / f"{bands}.npz", predictions)
        if config.features.source != "stems":
            return {}
        source = self._source("any", trained)
        report = voice_report.listen(model, source, trained.artists)
        clips = np.concatenate([mel for mel, _ in source.ordered(64)])
        stems = list(source.ordered_stems(64))
        cells = saliency.voice_cells(
            *(
                np.concatenate([each[name][..., 0] for each in stems])
                for name in ("vocals", "accompaniment")
            )
        )
        activations = ActivationShares(model.backbone, clips, source.clip_labels, cells)
        return {
            "shares": report.shares,
            "cam_on_voice": activations.means,
            "without_map": activations.without_map,
            "voice_of_all_cells": float(np.mean(cells)),
        }

    def decisions(self, trained, bands):
        """The `Decisions` of test songs with bands of `BANDS`."""
        return load_predictions(
            trained.folder / "confounding" / f"{bands}.npz"
        ).decide()


def scores_by_bands(listening, trained, values, variants, seeds):
    """Dict from (value, variant) to a dict from bands to the scores' dict."""
    return {
        (value, variant): {
            bands: tables.scores_of(
                [listening.decisions(trained[value, variant, s], bands) for s in seeds]
            )
            for bands in BANDS
        }
        for value in values
        for variant in variants
    }


def table(scores, trained, found, seeds):
    """The `Table` of all trainings.

    Args:
        scores: What `scores_by_bands` returned.
        trained: Dict from (value, variant, seed) to `Trained`.
        found: Dict from (value, variant, seed) to the results of `Listening.cell`.
        seeds: List of ints.
    """
    columns = ["confounding", "training"]
    columns += [f"F1 songs, band: {bands}" for bands in BANDS]
    columns += ["other's band: minus none", "other's band: LCA minus the same without"]
    columns += ["follows voice / band", "CAM on the voice, convolution / FGNL"]
    columns.append("validation clips, counterfactual minus main; mean |A − A~|")
    rows, records = [], []
    for (value, variant), by_bands in scores.items():
        results = [found[value, variant, seed] for seed in seeds]
        row = [f"{value:g}", variant]
        record = {"confounding": value, "variant": variant}
        for bands, levels in by_bands.items():
            row.append(levels["songs"].describe())
            for level in ("clips", "songs"):
                record |= levels[level].record(f"{bands}_{level}")
        for baseline, name in (
            ("none", "minus_none"),
            (without_lca(variant), "minus_without_lca"),
        ):
            lead = ""
            if baseline != variant and (value, baseline) in scores:
                other = scores[value, baseline]["other"]["songs"]
                ahead = tables.Lead.of(by_bands["other"]["songs"], other)
                lead = ahead.describe()
                record |= ahead.record(f"other_songs_{name}")
            row.append(lead)
        followed = on_voice = ""
        if results[0]:
            kinds = ("voice", "band")
            shares = {
                kind: tables.Plain([each["shares"][kind] for each in results])
                for kind in kinds
            }
            cams = {
                layer: tables.Plain([each["cam_on_voice"][layer] for each in results])
                for layer in results[0]["cam_on_voice"]
            }
            followed = " / ".join(each.describe() for each in shares.values())
            on_voice = " / ".join(each.describe() for each in cams.values())
            for kind, each in shares.items():
                record |= each.record(f"follows_{kind}")
            for layer, each in cams.items():
                record |= each.record(f"cam_on_voice_{layer}")
        row += [followed, on_voice]
        runs = [trained[value, variant, seed] for seed in seeds]
        row.append(_counterfactual(runs, record))
        rows.append(row)
        records.append(record)
    even = {each["voice_of_all_cells"] for each in found.values() if each}
    cells = f"{next(iter(even)):.3f}" if even else "unknown"
    note = (
        f"{len(seeds)} seeds ({', '.join(map(str, seeds))}). {tables.READING} Other "
        "columns: mean ± half of the 95 % interval over seeds (Student's t). follows: "
        "share of songs put together from two artists that are named after the voice, "
        "after the band. CAM: share of the class activation that lies on cells which "
        f"the voice dominates; spread evenly, {cells}. "
        f"{without_map(each for each in found.values() if each)} "
        "`vocals` hears the voice alone."
    )
    title = "What turns a model to the voice"
    return Table("confounding", title, columns, rows, records, note)


def without_lca(variant):
    """The variant without its counterfactual."""
    words = variant.split("+")
    if not {"lca", "cal"} & set(words):
        return variant
    kept = [word for word in words if word == "remix"]
    return "+".join(kept) or "none"


def _counterfactual(runs, record):
    """How the counterfactual does beside the main branch, in validation."""
    logs = [run.result["logs"] for run in runs]
    if any("val_cf_f1" not in each for each in logs):
        return ""
    gaps = [each["val_cf_f1"] - each["val_f1"] for each in logs]
    plain = tables.Plain(gaps)
    record |= plain.record("counterfactual_minus_main")
    below = sum(gap < 0 for gap in gaps)
    distance = tables.Plain([each["val_att_term"] for each in logs])
    record |= distance.record("attention_distance")
    return f"{plain.describe()}, below in {below} of {len(gaps)}; {distance.describe()}"


def claims(scores, values):
    """What the paper's claim comes to here: sentences."""
    notes = []
    for value in values:
        for plain, ours in (("none", "lca"), ("remix", "remix+lca")):
            if not {(value, plain), (value, ours)} <= set(scores):
                continue
            other = [scores[value, name]["other"]["songs"] for name in (ours, plain)]
            lead = tables.Lead.of(*other)
            reached = lead.mean >= 0.05 and lead.low > 0
            notes.append(
                f"Confounding {value:g}, another singer's band: {ours} is ahead of "
                f"{plain} by {lead.describe()}; the target, 0.05 with an interval "
                f"above zero, is {'reached' if reached else 'missed'}."
            )
    return notes


def draw(scores):
    """Curves of F1 over confounding; figure, `Picture`, and the data's rows."""
    panels, data = {}, []
    for bands, said in BANDS.items():
        lines = {}
        for (value, variant), by_bands in scores.items():
            songs = by_bands[bands]["songs"]
            point = (value, songs.mean, *songs.interval)
            lines.setdefault(variant, []).append(point)
            data.append([bands, variant, *(f"{number:.6f}" for number in point)])
        panels[f"test band: {said}"] = lines
    label = "confounding: probability of the own band in training"
    picture = Picture(
        "confounding.png",
        "Test songs against the confounding in training, by whose band plays in test; "
        "95 % intervals (bootstrap over seeds and songs)",
        "confounding_curves.csv",
    )
    columns = ["test_bands", "variant", "confounding", "f1_mean", "f1_low", "f1_high"]
    return pictures.curves(panels, label), picture, (columns, data)
