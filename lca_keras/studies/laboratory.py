"""Trainings that experiments share: each a run folder of its own, computed once."""

import dataclasses
import functools
import hashlib
import json
import pathlib
import zipfile

import numpy as np

from lca_keras.audio import separation
from lca_keras.base import files
from lca_keras.base.config import Config
from lca_keras.base.errors import UserError
from lca_keras.base.observer import Observer
from lca_keras.base.registry import NETWORKS
from lca_keras.base.sections import (
    AUGMENTATIONS,
    EFFECTS,
    EMBEDDING_LOSSES,
    METHODS,
    LossWeights,
)
from lca_keras.data import corpus, split
from lca_keras.evaluation.scoring import ClipPredictions
from lca_keras.workflow import course, training, warm_up
from lca_keras.workflow.run import Run

_PREDICTIONS = "predictions_test.npz"
# Section, field and value that a word of a variant stands for.
_WORDS = {
    **{word: ("train", "method", word) for word in METHODS},
    **{word: ("model", "name", word) for word in NETWORKS},
    **{word: ("train", "effect", word) for word in EFFECTS},
    # `none` is a method.
    **{word: ("train", "embedding_loss", word) for word in EMBEDDING_LOSSES[1:]},
    "detach": ("train", "detach_counterfactual", True),
    "one-step": ("train", "warmup_epochs", 0),
    "vocals": ("features", "source", "vocals"),
    **{f"no-{term}": ("loss", term, 0.0) for term in vars(LossWeights())},
}


def configure(variant, config, separator=None):
    """The `Config` of a variant, built on another one.

    A variant is words joined by +. A method (`none`, `cal`, `lca`) or a model (`crnn`,
    `crnnm`), `remix`, `specaugment`, a form of the effect (`probability`, `logit`,
    `product`), an embedding loss (`supcon`, `aam`), `detach`, `no-TERM` for a term of
    the loss that is switched off (`no-att`), `one-step` for no warm-up, `vocals` for
    songs without their bands; another word is a `UserError`. `separator` identifies
    what makes missing vocals; by default that of the `Config`.
    """
    sections = {"train": {"method": "none"}, "augment": {"kinds": ()}}
    for word in variant.split("+"):
        if word in AUGMENTATIONS:
            sections["augment"]["kinds"] += (word,)
        elif word in _WORDS:
            section, field, value = _WORDS[word]
            sections.setdefault(section, {})[field] = value
        else:
            known = ", ".join((*_WORDS, *AUGMENTATIONS))
            raise UserError(f"{word!r} is no part of a variant; these are {known}")
        if word == "vocals":
            own = separator or config.features.separator or separation.DEFAULT
            sections["features"]["separator"] = own
        sung = word in NETWORKS and "melody" in NETWORKS[word].streams
        if sung and config.features.melody == "none":
            sections.setdefault("features", {})["melody"] = "pyin"
    return config.replace(**sections)


@dataclasses.dataclass(frozen=True)
class Trained:
    """A finished training, with its run folder.

    `result` is a dict for JSON: `best_epoch`, `parameters`, `train_f1`, `logs` of the
    best epoch, and the scores of the parts as `lca_keras.workflow.course.Result`.
    """

    folder: pathlib.Path
    config: Config
    artists: list[str]
    result: dict

    @functools.cached_property
    def predictions(self):
        """The `ClipPredictions` of the test songs, as stored."""
        return load_predictions(self.folder / _PREDICTIONS)

    def model(self):
        """Its calibrated `LCAModel`; a `UserError` if its files were deleted."""
        try:
            return Run.load(self.folder).load_model()[0]
        except UserError as error:
            raise UserError(
                f"{error}. To train it again, delete {self.folder} and start the "
                "experiment once more."
            ) from error


class Laboratory:
    """The trainings of a `DataSource` in an experiment's folder, `out`."""

    def __init__(self, out, source, observer=None):
        self.out, self.source = pathlib.Path(out), source
        self._observer = observer or Observer()
        self._corpora, self._divisions = {}, {}

    def corpus(self, config):
        """`lca_keras.data.corpus.Corpus` with the features of a `Config`."""
        key = (config.features, config.clip_frames)
        if key not in self._corpora:
            found = course.prepare_corpus(self.source, config, self._observer)
            self._corpora[key] = found
        return self._corpora[key]

    def sources(self, config):
        """Dict from part to `ClipSource`, and the list of artists."""
        songs, division = self.corpus(config), self.division(config)
        about = (division.part_of, division.artists, config)
        return corpus.clip_sources(songs, *about), division.artists

    def tested(self, config, artists):
        """`ClipSource` of the songs that the split file of a `Config` tests.

        The corpus may have others, or none but these.
        """
        songs = self.corpus(config)
        parts = split.read_split(config.split.file, songs.songs, partial=True)
        part_of = {key: part for key, part in parts.items() if part == "test"}
        sources = corpus.clip_sources(songs, part_of, artists, config, ["test"])
        return sources["test"]

    def division(self, config):
        """`lca_keras.data.corpus.Division` of a `Config`, which depends on its seed."""
        key = (config.features, config.clip_frames, config.split, config.train.seed)
        if key not in self._divisions:
            self._divisions[key] = corpus.divide(config, self.corpus(config))
        return self._divisions[key]

    def place(self, variant, config):
        """Folder and settings of a training; other settings have another folder."""
        songs, division = self.corpus(config), self.division(config)
        contents = sorted(
            [
                *(song.artist, song.album, song.song, division.part_of[song.key]),
                songs.store.records[song.key].content_hash,
            ]
            for song in songs.songs
            if song.key in division.part_of
        )
        settings = config.to_dict()
        # Which songs are in which part says it, wherever that was written.
        settings["split"] = _digest(contents)
        name = f"{variant}-{config.train.clip_seconds}s"
        seed = f"seed-{config.train.seed}-{_digest(settings)}"
        return self.out / "cells" / name / seed, settings

    def cell(self, variant, config):
        """The arguments of `lca_keras.workflow.cells.cell` for a training."""
        folder, settings = self.place(variant, config)
        return folder, settings, lambda: self._train(folder, config)

    def trained(self, variant, config, result):
        """The `Trained` whose result is known."""
        folder, _ = self.place(variant, config)
        return Trained(folder, config, self.division(config).artists, result)

    def _train(self, folder, config):
        """Trains, calibrates and evaluates in a folder; the result as a dict."""
        job = Run(folder=folder, config=config, source=self.source)
        sources, artists = self.sources(config)
        way = course.Course(job, self.corpus(config), self.division(config), sources)
        shared = self.out / "warm-up"
        warm_up.begin(config, sources, len(artists), job.checkpoints, shared)
        # The cell holds the folder.
        steps = ("train", "calibrate", "evaluate")
        found = job.complete(steps, course=way, held=True)
        predictions = found.evaluations["test"].main.predictions
        save_predictions(folder / _PREDICTIONS, predictions)
        state = training.TrainingState.load(job.checkpoints)
        logs, kept = state.best_logs.items(), ("val_", "weight_")
        return {
            **found.scores,
            "best_epoch": state.best_epoch,
            "parameters": found.told["parameters"],
            "train_f1": state.history[-1]["f1"],
            "logs": {name: value for name, value in logs if name.startswith(kept)},
        }


def contents(source):
    """Digest of what the songs of a `ClipSource` are."""
    records = source.store.records
    return _digest(sorted((key, records[key].content_hash) for key in source.labels))


def _digest(content):
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:10]


def save_predictions(path, predictions):
    """Writes `lca_keras.evaluation.scoring.ClipPredictions` as a NumPy archive."""
    keys = list(predictions.songs)
    arrays = {
        "labels": predictions.labels,
        "songs": np.array(keys),
        "counts": np.array([len(predictions.songs[key]) for key in keys]),
        "clips": np.concatenate([predictions.songs[key] for key in keys]),
        "starts": np.concatenate([predictions.starts[key] for key in keys]),
    }
    arrays |= {f"output_{name}": a for name, a in predictions.outputs.items()}
    with files.atomic_path(path) as temporary:
        np.savez_compressed(temporary, **arrays)


def load_predictions(path):
    """Reads what `save_predictions` wrote; a `UserError` if it is gone or damaged."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = dict(stored)
        labels, keys = arrays.pop("labels"), arrays.pop("songs").tolist()
        ends = np.cumsum(arrays.pop("counts"))[:-1]
        songs, starts = (
            dict(zip(keys, np.split(arrays.pop(name), ends), strict=True))
            for name in ("clips", "starts")
        )
        outputs = {name.removeprefix("output_"): a for name, a in arrays.items()}
        return ClipPredictions(labels, songs, starts, outputs)
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        folder = pathlib.Path(path).parent
        raise UserError(
            f"{path}: cannot be read ({error}). To compute it again, delete {folder} "
            "and start the experiment once more."
        ) from error
