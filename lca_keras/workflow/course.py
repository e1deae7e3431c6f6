"""The way of a run from its configuration to an export, step by step."""

import collections
import contextlib
import dataclasses
import functools
import os
import pathlib
import shutil

import keras

from lca_keras.base import files, metrics
from lca_keras.base.errors import UserError
from lca_keras.base.observer import Observer
from lca_keras.data import corpus, split
from lca_keras.data.clips import ClipSource
from lca_keras.data.corpus import Corpus, Division
from lca_keras.drawing import plots
from lca_keras.evaluation import scoring
from lca_keras.explanation.saliency import ActivationLog
from lca_keras.exports import labels, versions
from lca_keras.exports.export import export_model
from lca_keras.models.factory import build_training_model
from lca_keras.voices import strangers
from lca_keras.workflow import advice, judgement, records, training

# Entries of `metrics.json`.
_ON_CARD = ("validation", "test", "voice_report", "gallery")


@dataclasses.dataclass
class Course:
    """A run on its way: its songs, and what its steps have found.

    A step leaves its files in the run folder, and tells of it.

    Attributes:
        job: `lca_keras.workflow.run.Run`.
        sources: Dict from part to `ClipSource`; what is held out here is evaluated.
        strategy: `tf.distribute.Strategy` to train under.
        keep: How many exports are kept; all if it is `None`.
        evaluations: Dict from part to `lca_keras.evaluation.scoring.Evaluation`.
        gallery: `lca_keras.voices.gallery.Gallery` and the similarities of known songs
            and clips, once it is set up.
    """

    job: object
    corpus: Corpus
    division: Division
    sources: dict
    strangers: ClipSource | None = None
    observer: Observer = dataclasses.field(default_factory=Observer)
    strategy: object = None
    keep: int | None = None
    evaluations: dict = dataclasses.field(default_factory=dict)
    gallery: tuple | None = None

    @functools.cached_property
    def model(self):
        """The calibrated `LCAModel`."""
        return self.job.load_model()[0]

    @property
    def artists(self):
        """List of class names."""
        return self.division.artists

    def _state(self):
        return training.TrainingState.load(self.job.checkpoints)

    def train(self):
        """Trains the epochs that are left; see `lca_keras.workflow.training.train`.

        Leaves checkpoints, `history.csv`, `training.png` and TensorBoard logs, what
        speaks for the artists of a few validation clips among them.
        """
        settings, state = self.job.config.train, self._state()
        self.observer.notes(advice.of_training(state, settings))
        if state.epoch < settings.epochs:
            steps = self.sources["train"].steps(settings.batch_size)
            watching = settings.epochs, steps, settings.warmup_epochs
            with self.observer.training(*watching) as callbacks:
                state = self._train(state, callbacks)
            figure = training.curve_figure(state.history, settings)
            plots.save_figure(figure, self.job.folder / "training.png")
        told = {"epochs": state.epoch, "best_epoch": state.best_epoch}
        self.observer.told("train", {**told, "objective": settings.objective})

    def _train(self, state, callbacks):
        job, sources = self.job, self.sources
        logs = os.fspath(job.folder / "tensorboard")

        def write_history(epoch, logs):
            history = self._state().history
            files.write_csv(job.folder / "history.csv", list(history[-1]), history)

        own = [
            keras.callbacks.LambdaCallback(on_epoch_end=write_history),
            keras.callbacks.TensorBoard(logs, write_graph=False, update_freq="epoch"),
        ]
        if job.config.front_end.frequencies is not None:  # Pictures over hertz.
            if not state.epoch:
                records.write_spectrograms(logs, sources["train"])
            few = records.few_clips(sources["validation"])
            own.append(ActivationLog(logs, *few, job.config.train.epochs))
        material = sources, len(self.artists), job.checkpoints
        how = [*own, *callbacks], build(job), self.strategy
        return training.train(job.config, *material, *how)

    def calibrate(self):
        """Fits the best model's temperature on validation clips: `model.keras`."""
        job = self.job
        # Another network's is no use, should this one come to no gallery.
        (job.folder / "gallery.json").unlink(missing_ok=True)
        with self.observer.working("Calibrating"):
            model = training.best_model(job.config, len(self.artists), job.checkpoints)
            predictions = scoring.Predictor(self.sources["validation"])(model)
            logits, labels = predictions.outputs["logits"], predictions.labels
            model.temperature = metrics.fit_temperature(logits, labels)
            with files.atomic_path(job.folder / "model.keras") as temporary:
                model.save(temporary)
        self.model = model
        found = {
            "best_epoch": self._state().best_epoch,
            "temperature": model.temperature,
            "parameters": model.backbone.count_params(),
        }
        records.add_results(job.folder, found)
        self.observer.told("calibrate", found)

    def evaluate(self):
        """Scores what is held out; see `lca_keras.workflow.judgement.evaluate`."""
        job, artists = self.job, self.artists
        held_out = {part: s for part, s in self.sources.items() if part != "train"}
        with self.observer.working("Evaluating"):
            found = judgement.evaluate(job.folder, self.model, held_out, artists)
        self.evaluations = found
        self.observer.told("evaluate", {p: each.scores for p, each in found.items()})
        if "test" in found:
            about = self._state(), job.config.train, found["test"], artists
            self.observer.notes(advice.of_scores(*about))

    def report_voices(self):
        """What it listens to, where stems are at hand: in the store or as files."""
        job, clips = self.job, self.sources["test"]
        songs = [song for song in self.corpus.songs if song.key in clips.labels]
        source = job.config.features.source
        at_hand = source == "mixture" and judgement.stems_at_hand(songs)
        if source != "stems" and not at_hand:
            return
        about = self.artists, job.source, job.config, songs, self.observer
        try:
            judgement.voice_report(job.folder, self.model, clips, *about)
        except (UserError, OSError) as error:  # The model is there all the same.
            self.observer.note(f"no voice report: {error}")

    def set_up_gallery(self):
        """Sets up who is nobody of the artists, unless one has no training clips.

        Leaves `gallery.json`, and `gallery` in `metrics.json`.
        """
        parts = count_parts(self.division, {"train": self.sources["train"]})
        if lacking := parts["train"]["lacking"]:  # The model is there all the same.
            self.observer.note(
                "nobody is unknown to it, every song gets a name: no training songs of "
                f"{', '.join(lacking)} are there"
            )
            return
        job, network = self.job, self.model.backbone
        false_alarm, seed = job.config.gallery.false_alarm, job.config.train.seed
        with self.observer.working("Comparing voiceprints"):
            how = false_alarm, seed
            gallery, known, accuracy = strangers.fit(network, self.sources, *how)
            files.write_json(job.folder / "gallery.json", gallery.to_dict())
            told = {"false_alarm": false_alarm, "threshold": gallery.threshold}
            told["detector"] = accuracy
            if "test" in self.sources:
                test, detector = self.sources["test"], gallery.detector
                heard = strangers.describe_clips(network, test, detector)
                verdicts = strangers.verdicts(gallery, heard, self.model.temperature)
                told["test"] = strangers.shares(verdicts)
        self.gallery = gallery, known
        records.add_gallery(job.folder, told)

    def measure_strangers(self):
        """Measures what a run makes of singers whom it does not know.

        These are songs that were given, or artists whom a side training leaves out; its
        result is kept, since it depends on the configuration alone. Leaves `strangers`
        in `gallery` of `metrics.json`.
        """
        if self.gallery is None:
            return
        why, (gallery, known) = None, self.gallery
        try:
            if self.strangers is None:
                told = self._side_training()
            else:
                about = self.model.backbone, self.strangers, gallery.detector
                heard = gallery, known, strangers.describe_clips(*about)
                found = strangers.measure(*heard, self.model.temperature)
                told = {"given": True, **found}
            records.add_gallery(self.job.folder, {"strangers": told} if told else {})
        except UserError as error:
            what = "the side training has failed. " if self.strangers is None else ""
            why = f"{what}{error}"
        told = records.results(self.job.folder)["gallery"]
        self.observer.told("gallery", {**told, "unmeasured": why})

    def _side_training(self):
        """What a side training has measured, now or before; `None` if there is none."""
        config, folder = self.job.config, self.job.folder / "side-training"
        chosen = training.left_out(self.artists, config)
        epochs = config.side_epochs
        before = records.results(self.job.folder)["gallery"].get("strangers")
        asked = {"artists": chosen, "epochs": epochs}
        if not chosen or asked.items() <= (before or {}).items():
            return before
        with self.observer.progress("Side training without some artists") as show:
            log = keras.callbacks.LambdaCallback(
                on_train_begin=lambda logs: show(0, epochs),
                on_epoch_end=lambda epoch, logs: show(epoch + 1, epochs),
            )
            how = self.sources, self.artists, folder, [log]
            found = training.side_training(config, *how)
        shutil.rmtree(folder, ignore_errors=True)
        return found

    def export(self):
        """Exports the main branch as the next version."""
        job = self.job
        self.observer.notes(advice.of_enrolled(job))
        results = records.results(job.folder)
        about = {"run": str(job.folder), "environment": records.environment(job.config)}
        with self.observer.working("Exporting the main branch"):
            what = self.model.main_branch(), self.artists, job.config
            where = job.exports, job.folder.name
            scores = {name: results[name] for name in _ON_CARD if name in results}
            exported = export_model(*what, *where, scores, about, job.gallery)
            records.add_results(job.folder, {"export": str(exported)})
            if self.keep is not None:
                labelled = labels.labels_of(exported.parent).values()
                versions.prune(exported.parent, self.keep, labelled)
        self.observer.told("export", {"folder": exported})


# By name, in their order.
STEPS = {
    "train": Course.train,
    "calibrate": Course.calibrate,
    "evaluate": Course.evaluate,
    "voice_report": Course.report_voices,
    "gallery": Course.set_up_gallery,
    "strangers": Course.measure_strangers,
    "export": Course.export,
}
# Those that need no test songs.
WITHOUT_TEST = tuple(name for name in STEPS if name != "voice_report")


@dataclasses.dataclass(frozen=True)
class Result:
    """What a run has come to, as its folder has it.

    Attributes:
        export: `pathlib.Path` of the exported version, or `None`.
        songs: Dict from part to its number of songs.
        scores: Dict from part to scores, of `lca_keras.evaluation.scoring.Evaluation`.
        told: Dict of what else the steps found, as `metrics.json` has it: `artists`,
            `best_epoch`, `temperature`, `parameters`, `voice_report`, and as `gallery`
            what the gallery is worth.
        evaluations: Dict from part to `Evaluation`; empty if nothing was evaluated now.
    """

    export: pathlib.Path | None
    songs: dict[str, int]
    scores: dict[str, dict]
    told: dict
    evaluations: dict = dataclasses.field(default_factory=dict, compare=False)

    @classmethod
    def of(cls, job, evaluations=()):
        """Reads it from the folder of a `lca_keras.workflow.run.Run`."""
        told = records.results(job.folder)
        scores = {part: told.pop(part) for part in split.PARTS if part in told}
        if export := told.pop("export", None):
            version = pathlib.Path(export).name
            export = pathlib.Path(job.exports, job.folder.name, version)
        parts = split.parts_by_name(job.folder / "split.csv").values()
        songs = dict(collections.Counter(parts))
        return cls(export, songs, scores, told, dict(evaluations))


def prepare_corpus(source, config, observer):
    """`lca_keras.data.corpus.prepare`, and an `Observer` sees what comes of it."""
    seen = observer if source.data else Observer()  # A store has its features.
    with seen.progress("Features") as show:
        found = corpus.prepare(source, config, show)
    observer.told("corpus", _counted(found))
    return found


def _counted(found):
    return {
        "songs": len(found.songs),
        "artists": len({song.artist for song in found.songs}),
        "skipped": found.skipped,
        "doubtful": found.doubtful,
        "notes": found.notes,
    }


def count_parts(division, sources):
    """Dict from part to its `songs`, its `clips` and the artists `lacking` there."""
    found = {}
    for part, source in sources.items():
        there = {division.artists[number] for number in source.labels.values()}
        found[part] = {
            "songs": len(source.labels),
            "clips": source.num_clips,
            # A fold may have none.
            "lacking": [artist for artist in division.artists if artist not in there],
        }
    return found


def prepare(job, observer=None):
    """Makes the songs of a `Run` ready, a `Course`; leaves nothing in its folder."""
    observer = observer or Observer()
    config, begun = job.config, (job.folder / "split.csv").exists()
    if job.source.data and not begun and not config.split.file:
        # Needs only the names: said before hours of feature extraction.
        split.split_songs(job.source.songs(), config.split, config.train.seed)
    observer.notes(advice.of_source(job.source))
    songs = prepare_corpus(job.source, config, observer)
    division = corpus.divide(config, songs, job.folder)
    strange = None
    if job.source.unknown is not None:
        with observer.progress("Features of strangers") as show:
            about = job.source, config, division.artists, show
            found, strange = corpus.strangers(*about)
        observer.told("strangers", _counted(found))
    if config.train.continue_from and not begun:
        observer.notes(advice.of_known(job, songs, division))
    observer.notes(advice.of_stems(config, songs.songs))
    sources = corpus.clip_sources(songs, division.part_of, division.artists, config)
    observer.notes(advice.of_parts(division))
    observer.told("parts", count_parts(division, sources))
    return Course(job, songs, division, sources, strange, observer)


def complete(job, wanted, observer=None, *, course=None, anew=False, held=False, **how):
    """Takes a run from where it stands to its end; a finished one tells its result.

    Its songs are made ready and its folder is begun in any case.

    Args:
        job: `lca_keras.workflow.run.Run`.
        wanted: Names of steps, of `STEPS`.
        observer: An `Observer`; without one nothing is shown.
        course: What `prepare` returned, or a `Course` of songs from elsewhere.
        anew: Whether a finished run is calibrated, evaluated and exported once more.
        held: Whether this process has locked the folder already.
        **how: `strategy` and `keep` of a `Course`.
    """
    if unknown := sorted(set(wanted) - set(STEPS)):
        raise ValueError(f"unknown steps {unknown}; these are {', '.join(STEPS)}")
    trained = training.TrainingState.load(job.checkpoints).epoch
    if not anew and "export" in wanted and trained >= job.config.train.epochs:
        result = Result.of(job)
        if result.export and result.export.exists():
            return result
    course = dataclasses.replace(course or prepare(job, observer), **how)
    if not job.folder.exists():
        job.save()
    with contextlib.nullcontext() if held else job.working(course.corpus.store):
        job.save()
        corpus.keep_split(job.folder, course.corpus, course.division)
        # What is exported from here on is another one.
        records.drop_result(job.folder, "export")
        for name, step in STEPS.items():
            if name in wanted:
                step(course)
    return Result.of(job, course.evaluations)


def train_along(job, songs, strategy):
    """Trains a `Run` that the first process has begun, which does all the rest."""
    division = corpus.divide(job.config, songs, job.folder)
    artists, parts = division.artists, ("train", "validation")
    sources = corpus.clip_sources(songs, division.part_of, artists, job.config, parts)
    where = job.checkpoints, (), build(job), strategy
    return training.train(job.config, sources, len(artists), *where)


def build(job):
    """What builds the training model of a run; another model's weights may be in it."""
    exported = job.config.train.continue_from
    # Once an epoch is finished, its checkpoint has what was learned before.
    if exported is None or training.TrainingState.load(job.checkpoints).epoch:
        return build_training_model
    from lca_keras.exports import savedmodel

    exported = pathlib.Path(exported)
    network = savedmodel.read_network(exported)
    known = files.read_json(exported / versions.METADATA)["artists"]
    artists = split.artists_of(job.folder / "split.csv")
    return training.continued(build_training_model, network, known, artists)
