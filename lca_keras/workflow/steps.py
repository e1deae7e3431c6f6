"""The steps of a run: each leaves its files in the run folder, and tells of it.

`lca_keras.workflow.course.complete` takes them one after the other.
"""

import dataclasses
import functools
import os
import pathlib
import shutil

import keras

from lca_keras.base import files, metrics
from lca_keras.base.errors import UserError
from lca_keras.base.observer import Observer
from lca_keras.data import split
from lca_keras.data.clips import ClipSource
from lca_keras.data.corpus import Corpus, Division
from lca_keras.drawing import plots
from lca_keras.evaluation import scoring
from lca_keras.voices import strangers
from lca_keras.workflow import advice, judgement, records, side_training, training

# Entries of `metrics.json`.
_ON_CARD = ("validation", "test", "voice_report", "open_set")


@dataclasses.dataclass
class Course:
    """A run on its way: its songs, and what its steps have found.

    Attributes:
        job: `lca_keras.workflow.run.Run`.
        corpus: `lca_keras.data.corpus.Corpus`.
        division: `lca_keras.data.corpus.Division`.
        sources: Dict from part to `lca_keras.data.clips.ClipSource`; what is held out
            here is evaluated.
        strangers: `ClipSource` of songs by strangers, or `None`.
        observer: `lca_keras.base.observer.Observer`.
        strategy: `tf.distribute.Strategy` to train under, or `None`.
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
        from lca_keras.explanation.saliency import ActivationLog

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
        callbacks = [*own, *callbacks]
        material = sources, len(self.artists), job.checkpoints
        with_what = callbacks, build(job), self.strategy
        return training.train(job.config, *material, *with_what)

    def calibrate(self):
        """Fits the temperature of the best epoch's model on validation clips.

        Leaves `model.keras`, that model in float32.
        """
        job = self.job
        # Another network's is no use, should this one come to no gallery.
        (job.folder / "gallery.json").unlink(missing_ok=True)
        with self.observer.working("Calibrating"):
            model = training.best_model(job.config, len(self.artists), job.checkpoints)
            predictions = scoring.Predictor(self.sources["validation"])(model)
            model.temperature = metrics.fit_temperature(
                predictions.outputs["logits"], predictions.labels
            )
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
        told = {part: evaluation.scores for part, evaluation in found.items()}
        self.observer.told("evaluate", told)
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

        Leaves `gallery.json`, and `open_set` in `metrics.json`.
        """
        there = set(self.sources["train"].labels.values())
        lacking = [name for n, name in enumerate(self.artists) if n not in there]
        if lacking:  # The model is there all the same.
            self.observer.note(
                "nobody is unknown to it, every song gets a name: no training songs of "
                f"{', '.join(lacking)} are there"
            )
            return
        job, network = self.job, self.model.backbone
        false_alarm, seed = job.config.open_set.false_alarm, job.config.train.seed
        with self.observer.working("Comparing voiceprints"):
            found = strangers.fit(network, self.sources, false_alarm, seed)
            gallery, known, accuracy = found
            files.write_json(job.folder / "gallery.json", gallery.to_dict())
            told = {
                "false_alarm": false_alarm,
                "threshold": gallery.threshold,
                "detector": accuracy,
            }
            if "test" in self.sources:
                test, detector = self.sources["test"], gallery.detector
                heard = strangers.describe_clips(network, test, detector)
                verdicts = strangers.verdicts(gallery, heard, self.model.temperature)
                told["test"] = strangers.shares(verdicts)
        self.gallery = gallery, known
        records.add_open_set(job.folder, told)

    def measure_strangers(self):
        """Measures what a run makes of singers whom it does not know.

        These are songs that were given, or artists whom a side training leaves out; its
        result is kept, since it depends on the configuration alone. Leaves `strangers`
        in `open_set` of `metrics.json`.
        """
        if self.gallery is None:
            return
        why, (gallery, known) = None, self.gallery
        try:
            if self.strangers is None:
                told = self._side_training()
            else:
                model = self.model
                about = model.backbone, self.strangers, gallery.detector
                heard = strangers.describe_clips(*about)
                told = strangers.measure(gallery, known, heard, model.temperature)
                told = {"given": True, **told}
            records.add_open_set(self.job.folder, {"strangers": told} if told else {})
        except UserError as error:
            why = f"the side training has failed. {error}"
        told = records.results(self.job.folder)["open_set"]
        self.observer.told("gallery", {**told, "unmeasured": why})

    def _side_training(self):
        """What a side training has measured, now or before; `None` if there is none."""
        config, folder = self.job.config, self.job.folder / "side-training"
        chosen = side_training.left_out(self.artists, config)
        epochs = config.side_epochs
        before = records.results(self.job.folder)["open_set"].get("strangers")
        asked = {"artists": chosen, "epochs": epochs}
        if not chosen or asked.items() <= (before or {}).items():
            return before
        with self.observer.progress("Side training without some artists") as show:
            log = keras.callbacks.LambdaCallback(
                on_train_begin=lambda logs: show(0, epochs),
                on_epoch_end=lambda epoch, logs: show(epoch + 1, epochs),
            )
            material = self.sources, self.artists, folder
            found = side_training.side_training(config, *material, [log])
        shutil.rmtree(folder, ignore_errors=True)
        return found

    def export(self):
        """Exports the main branch as the next version."""
        from lca_keras.exports import versions
        from lca_keras.exports.export import export_model

        job = self.job
        self.observer.notes(advice.of_enrolled(job))
        results = records.results(job.folder)
        about = {"run": str(job.folder), "environment": records.environment(job.config)}
        with self.observer.working("Exporting the main branch"):
            exported = export_model(
                self.model.main_branch(),
                self.artists,
                job.config,
                job.exports,
                job.folder.name,
                {name: results[name] for name in _ON_CARD if name in results},
                about,
                job.gallery,
            )
            records.add_results(job.folder, {"export": str(exported)})
            if self.keep is not None:
                versions.prune(exported.parent, self.keep)
        self.observer.told("export", {"folder": exported})


def build(job):
    """What builds the training model of a run; another model's weights may be in it."""
    from lca_keras.models.factory import build_training_model

    exported = job.config.train.continue_from
    # Once an epoch is finished, its checkpoint has what was learned before.
    if exported is None or training.TrainingState.load(job.checkpoints).epoch:
        return build_training_model
    from lca_keras.exports import savedmodel, versions

    exported = pathlib.Path(exported)
    network = savedmodel.read_network(exported)
    known = files.read_json(exported / versions.METADATA)["artists"]
    artists = split.artists_of(job.folder / "split.csv")
    return training.continued(build_training_model, network, known, artists)
