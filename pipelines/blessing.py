"""Whether a candidate is good enough: decisions on test songs, scores, thresholds.

The scores are those of TensorFlow Model Analysis, whose own files are kept beside them
for its notebooks.
"""

import contextlib
import dataclasses
import logging
import math
import os
import pathlib

import numpy as np

from lca_keras.audio.decode import AudioError
from lca_keras.base import console, files, metrics
from lca_keras.base.config import Config
from lca_keras.base.errors import UserError
from lca_keras.data.examples import to_example
from lca_keras.drawing import pages, plots
from lca_keras.evaluation.scoring import confusion_figure
from lca_keras.exports.versions import METADATA
from lca_keras.features import spectrogram
from lca_keras.inference import identification
from pipelines.settings import LEVELS, SLICES

CANDIDATE, BASELINE = "candidate", "baseline"
PAGE = "results.html"


# === Decisions ===


def decide(export, corpus, keys, model):
    """What an export says of songs and of their clips, dicts for a CSV.

    Songs go through the signature `examples`, as serialised records; clips through that
    of the front end. Where the store has stems, the voice alone is heard too. An export
    that takes other features than the store's hears the audio files: one that cannot be
    used is an error.

    Nobody's name stands where a song cannot be judged. A song that is unknown counts as
    that of the singer whose it would be, and one without voice, where features come of
    the store, as nobody's. `model` is `CANDIDATE` or `BASELINE`.
    """
    about = files.read_json(pathlib.Path(export, METADATA))
    served = Config.from_dict(about["config"]).served_features
    fits = _fits(corpus.store.config, served)
    hear = _of_store(export, about, corpus.store) if fits else _of_audio(export)
    songs, rows = {song.key: song for song in corpus.songs}, []
    for song in map(songs.get, keys):
        for heard, (singer, clips) in hear(song).items():
            row = {
                "model": model,
                "level": "song",
                "artist": song.artist,
                "album": f"{song.artist} / {song.album}",
                "clip_seconds": f"{about['clip_seconds']:.2f}",
                "origin": origin(song.path),
                "heard": heard or served.source,
                "song": song.label,
                "singer": song.artist,
                "said": singer,
            }
            rows.append(row)
            rows += [{**row, "level": "frame", "said": each} for each in clips]
    return rows


def singers(about):
    """All whom a version names, by its metadata: its artists, then the enrolled."""
    return [*about["artists"], *(about.get("gallery") or {}).get("enrolled", [])]


def origin(path):
    """Name of the corpus that a song is from: the folder above its artist's."""
    parents = pathlib.Path(path).parents
    return parents[2].name if len(parents) > 3 else ""


def _fits(stored, served):
    """Whether a store's `mel` is what a model of some features is served."""
    if stored.source == "stems" and served.source == "mixture":
        stored = dataclasses.replace(stored, source="mixture", separator="")
    if served.melody == "none":
        stored = dataclasses.replace(stored, melody="none")
    return stored == served


def _of_store(export, about, store):
    """A function of a song: what is heard, to the singer and those of the clips."""
    import tensorflow as tf

    model = tf.saved_model.load(os.fspath(export))
    front_end = store.front_end
    examples = model.signatures["examples"]
    whole = model.signatures[front_end.signature]
    names = Config.from_dict(about["config"]).streams
    artists = singers(about)

    def clips(**arrays):
        inputs = {n: tf.constant(a[None], tf.float32) for n, a in arrays.items()}
        probabilities = whole(**inputs)["frame_probabilities"][0].numpy()
        voting = probabilities[probabilities.any(axis=1)]
        said = [artists[index] for index in voting.argmax(axis=1)]
        return artists[metrics.vote(voting)] if said else "", said

    def hear(song):
        arrays, record = store.read(song.key).arrays, store.records[song.key]
        serialized = to_example(song.key, record, arrays, store.config)
        decision = examples(tf.constant([serialized]))["decision"][0].numpy()
        singer = artists[decision.argmax()] if decision.any() else ""
        stems = store.config.source == "stems"
        decided = singer, clips(**{name: arrays[name] for name in names})[1]
        heard = {"mixture" if stems else "": decided}
        if stems and len(names) == 1:
            vocals = front_end.mixed(spectrogram.stem_power(arrays["vocals"]))
            heard["vocals"] = clips(**{names[0]: vocals})
        return heard

    return hear


def _of_audio(export):
    identifier = identification.Identifier(export)

    def hear(song):
        try:
            said = identifier.identify(song.path, song.vocals_path, closed_set=True)
        except AudioError as error:
            raise UserError(
                f"{export} takes other features than the candidate, so it has to hear "
                f"the audio, and {song.path} cannot be used: {error}"
            ) from error
        return {"": (said.singer, [clip["singer"] for clip in said.clips])}

    return hear


# === Scores ===


def analyse(rows, folder):
    """Scores of what `decide` returned, of one model or two; its files in a folder.

    Returns:
        Dict from (model, level, slice, value) to a dict of scores; without slice and
        value those of all songs, heard as the model is served, and only these have F1.
    """
    import pandas as pd

    found, logger = {}, logging.getLogger()
    with contextlib.ExitStack() as stack:
        # What its libraries print at their import stays off the screen.
        stack.enter_context(console.stderr_to(os.devnull))
        stack.callback(logger.setLevel, logger.level)
        logger.setLevel(logging.ERROR)
        for (model, level), few in pd.DataFrame(rows).groupby(["model", "level"]):
            for key, values in _analyse(few, folder / f"{model}_{level}").items():
                found[(model, level, *key)] = values
    return found


def _analyse(frame, folder):
    """Dict from (slice, value) to scores, of decisions of one model and level."""
    import tensorflow_model_analysis as tfma
    from google.protobuf import json_format
    from tensorflow_model_analysis.proto import config_pb2

    # A name that nobody has here or says would have no F1, nor then the mean.
    names, codes = np.unique(frame[["singer", "said"]], return_inverse=True)
    one_hot = np.eye(len(names), dtype="float32")[codes.reshape(-1, 2)]
    frame = frame[[*SLICES]].assign(
        # Songs that are heard in parts too count once among all songs.
        whole=np.where(frame["heard"] == frame["heard"].iloc[0], "yes", "no"),
        label=list(one_hot[:, 0]),
        prediction=list(one_hot[:, 1]),
    )
    weights = {"class_weights": {str(index): 1.0 for index in range(len(names))}}
    parts = [["whole", name] for name in SLICES if name != "heard"]
    slices = [["whole"], *parts, ["heard"]]
    config = {
        "model_specs": [{"label_key": "label", "prediction_key": "prediction"}],
        "slicing_specs": [{"feature_keys": keys} for keys in slices],
        "metrics_specs": [
            _metric("ExampleCount", "count"),
            _metric("CategoricalAccuracy", "accuracy"),
            _metric("F1Score", "f1_macro", macro_average=True, **weights),
            _metric("F1Score", "f1", weighted_macro_average=True, **weights),
        ],
    }
    config = json_format.ParseDict(config, config_pb2.EvalConfig())
    result = tfma.analyze_raw_data(frame, config, output_path=str(folder))
    found = {}
    for key, outputs in result.slicing_metrics:
        of = dict(key)
        if of.pop("whole", "yes") == "no":
            continue
        ((name, value),) = of.items() or (("", ""),)
        # Names begin with how they are aggregated.
        values = {
            metric.splitlines()[-1].lstrip("_"): each["doubleValue"]
            for metric, each in outputs[""][""].items()
        }
        values["count"] = int(values["count"])
        if name:  # Of one artist's songs alone F1 says nothing.
            values = {metric: values[metric] for metric in ("count", "accuracy")}
        found[name, value] = values
    return found


def _metric(kind, name, **aggregate):
    metric = {"class_name": kind, "config": f'"name": "{name}"'}
    return {"metrics": [metric], **({"aggregate": aggregate} if aggregate else {})}


# === Thresholds ===


@dataclasses.dataclass(frozen=True)
class Judgement:
    """What became of a threshold, which is told in words."""

    threshold: str
    passed: bool
    value: float | None  # That was compared, the worst one of its slices.
    where: str = ""  # Slice with that value.
    why: str = ""  # There is nothing to be compared.

    def describe(self):
        """The value with its slice, or why there is none."""
        if self.value is None:
            return self.why
        return f"{self.value:.3f}" + (f" ({self.where})" if self.where else "")


def judge(thresholds, scores, band_share, baseline):
    """Compares scores, as of `analyse`, with `Threshold`s; a list of `Judgement`.

    `band_share` is the share of decisions that follow the band, or why it is not known;
    `baseline` whether there is a pushed version to compare with.
    """
    return [_judge(each, scores, band_share, baseline) for each in thresholds]


def judge_artists(candidate, baseline, may_drop):
    """Whether a candidate knows all artists of the pushed version; a `Judgement`.

    Test songs alone don't tell: those of an artist who is left out are left out too.
    """
    known, before = (
        singers(files.read_json(pathlib.Path(export, METADATA)))
        for export in (candidate, baseline)
    )
    lost = sorted(set(before) - set(known) - set(may_drop))
    said = "knows the artists of the pushed version, may_drop apart"
    return Judgement(said, not lost, float(len(lost)), ", ".join(lost))


def _judge(threshold, scores, band_share, baseline):
    said, [(kind, limit)] = threshold.describe(), threshold.limits
    if threshold.metric == "band_share":
        if isinstance(band_share, str):
            return Judgement(said, True, None, why=f"not judged: {band_share}")
        values = {"": band_share}
    else:
        values = _values(threshold, scores, CANDIDATE)
    if not values:
        there = sorted({v for _, _, name, v in scores if name == threshold.slice})
        raise UserError(
            f"threshold {said!r}: no such slice; the test songs have "
            f"{', '.join(there) or 'none'}"
        )
    if kind == "change_at_least":
        if not baseline:
            return Judgement(said, True, None, why="nothing pushed to compare with")
        # What the pushed version is not asked about here counts as zero.
        before = _values(threshold, scores, BASELINE)
        values = {v: x - before.get(v, 0.0) for v, x in values.items()}
    sign = -1 if kind == "at_most" else 1
    where = min(values, key=lambda value: sign * values[value])
    worst = float(values[where])
    # Differences of shares such as 0.7 - 0.95.
    passed = sign * worst >= sign * limit or math.isclose(worst, limit)
    return Judgement(said, passed, worst, where)


def _values(threshold, scores, model):
    """Dict from the slices that a threshold is about to a model's scores."""
    level, metric = threshold.metric.split("_", 1)
    return {
        value: each[metric]
        for (*of, value), each in scores.items()
        if of == [model, level, threshold.slice] and threshold.value in ("", value)
    }


def table(scores):
    """Scores as columns and rows, the candidate beside the baseline."""
    metrics = ("count", "accuracy", "f1", "f1_macro")
    models = [m for m in (CANDIDATE, BASELINE) if any(key[0] == m for key in scores)]
    columns = ["level", "slice", "value"]
    columns += [f"{metric}, {model}" for metric in metrics for model in models]
    order, rows = ("", *SLICES), []
    for level, name, value in sorted(
        {key[1:] for key in scores},
        key=lambda key: (LEVELS.index(key[0]), order.index(key[1]), key[2]),
    ):
        row = [level, name or "all", value]
        for metric in metrics:
            pattern = "{:.0f}" if metric == "count" else "{:.3f}"
            for model in models:
                number = scores.get((model, level, name, value), {}).get(metric)
                row.append("" if number is None else pattern.format(number))
        rows.append(row)
    return columns, rows


# === The page ===


def write_page(folder, name, judged, scores, rows, share, baseline, known):
    """Writes `results.html`, a page without anything to load, and `confusion.png`.

    `judged`, `scores` and `rows` are what `judge`, `analyse` and `decide` returned,
    `share` is the `band_share` of `judge`, and `known` the number of test songs that
    the baseline was trained on or chosen by. `decisions.csv` is in the folder.
    """
    said = {True: "yes", False: "no"}
    judgements = [
        [one.threshold, one.describe(), "" if one.value is None else said[one.passed]]
        for one in judged
    ]
    own = [row for row in rows if (row["model"], row["level"]) == (CANDIDATE, "song")]
    whole = [row for row in own if row["heard"] == own[0]["heard"]]
    named = [[row["singer"], row["said"]] for row in whole]
    names, codes = np.unique(named, return_inverse=True)
    shown = [name or "nobody" for name in names]
    figure = confusion_figure(*codes.reshape(-1, 2).T, shown, "test songs")
    plots.save_figure(figure, folder / "confusion.png")
    picture = pages.data_uri((folder / "confusion.png").read_bytes(), "image/png")
    decisions = (folder / "decisions.csv").read_bytes()
    link = pages.link(decisions, "text/csv", "decisions.csv", "every decision as CSV")
    wrong = [
        [row["song"], row["heard"], row["said"] or "nobody"]
        for row in own
        if row["said"] != row["singer"]
    ]
    if not isinstance(share, str):
        share = f"{share:.0%} of songs put together from one's voice and another's band"
    note = (
        f"<p><strong>{known} of these test songs the pushed version knows from its "
        "own training: beside it the candidate looks worse than it is.</strong></p>"
    )
    body = [
        f"<p>{'Blessed' if all(each.passed for each in judged) else 'Not blessed'}; "
        f"compared with {pages.escape(baseline or 'nothing: nothing else is pushed')}."
        "</p>",
        note if known else "",
        "<h2>Thresholds</h2>",
        pages.table(["threshold", "value", "reached"], judgements),
        f"<p>Named after the band: {pages.escape(share)}.</p>",
        "<h2>Scores on the test songs</h2>",
        "<p>“frame” are clips, “heard” is what of a song was played to the model: the "
        "mixture, or the voice alone where it is at hand.</p>",
        pages.table(*table(scores)),
        f"<p>{link}</p>",
        "<h2>Confusion of songs</h2>",
        f'<img alt="confusion matrix" src="{picture}">',
        "<h2>Songs that are named wrongly</h2>",
        pages.table(["song", "heard", "taken for"], wrong) if wrong else "<p>None.</p>",
    ]
    pages.write(folder / PAGE, f"{name}: evaluation", "\n".join(body))
