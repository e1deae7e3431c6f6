"""A run folder and its steps: train, calibrate, evaluate, export; and the cell.

Each step takes values, leaves its files in the run folder and returns values; none
prints. `python -m lca_keras.fit` calls them one after the other.
"""

import contextlib
import dataclasses
import datetime
import os
import pathlib
import platform
import shutil
import subprocess
import sys
import time

from lca_keras.base import files, plots
from lca_keras.base.config import Config
from lca_keras.base.errors import UserError
from lca_keras.data import split
from lca_keras.data.corpus import DataSource
from lca_keras.data.store import damaged_shards_message
from lca_keras.voices.gallery import Gallery

# Entries of `metrics.json`.
_ON_CARD = ("validation", "test", "voice_report", "open_set")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """A run folder and what was asked of it.

    Attributes:
        folder: `pathlib.Path` of the run folder; its name is the model's.
        config: `lca_keras.base.config.Config`, all that decides the result.
        source: `lca_keras.data.corpus.DataSource`, where the data is.
        exports: Folder of all exports.
    """

    folder: pathlib.Path
    config: Config
    source: DataSource
    exports: str = "saved_models"

    @property
    def checkpoints(self):
        """Folder of the checkpoints."""
        return self.folder / "checkpoints"

    def save(self):
        """Makes the folder with what is needed to resume the run, in one step."""
        with files.atomic_path(self.folder) as temporary:
            temporary.mkdir(parents=True)
            self._describe(temporary)

    def save_in_cell(self):
        """The same in a folder that `cell` has made."""
        self._describe(self.folder)

    def _describe(self, folder):
        files.write_json(folder / "environment.json", environment(self.config))
        self._save_places(folder)
        self.config.save(folder / "config.yaml")

    def save_changes(self):
        """Writes where data and exports are now, and the configuration."""
        self._save_places(self.folder)
        with files.atomic_path(self.folder / "config.yaml") as temporary:
            self.config.save(temporary)

    def _save_places(self, folder):
        source = dataclasses.asdict(self.source.absolute())
        job = {"data": source, "exports": os.path.abspath(self.exports)}
        files.write_json(pathlib.Path(folder, "job.json"), job)

    @classmethod
    def load(cls, folder):
        """Reads a run folder.

        Raises:
            UserError: It is not a run folder.
        """
        folder = pathlib.Path(folder)
        try:
            job = files.read_json(folder / "job.json")
            if not isinstance(job["data"], dict):
                raise ValueError("of an earlier version; begin a new run")
            source = DataSource(**job["data"])
            exports = job["exports"]
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise UserError(f"{folder} is not a run folder ({error})") from error
        config = Config.load(folder / "config.yaml")
        return cls(folder=folder, config=config, source=source, exports=exports)

    @contextlib.contextmanager
    def working(self, store):
        """Holds the run for this process; names shards of `store` that are damaged.

        Raises:
            UserError: Another process is at work here, or the store is damaged.
        """
        import tensorflow as tf

        with files.lock(self.folder / ".lock", wait=False):
            try:
                yield
            except tf.errors.OpError as error:
                corrupt = store.corrupt_shards()
                if not corrupt:
                    raise
                raise UserError(damaged_shards_message(corrupt)) from error

    def train(self, sources, num_classes, callbacks=(), strategy=None):
        """Trains the epochs that are left; see `lca_keras.workflow.training.train`.

        Leaves checkpoints, `history.csv`, `training.png` and TensorBoard logs, what
        speaks for the artists of a few validation clips among them.
        """
        import keras

        from lca_keras.explanation.activation_log import ActivationLog
        from lca_keras.workflow import training

        def state():
            return training.TrainingState.load(self.checkpoints)

        def write_history(epoch, logs):
            history = state().history
            files.write_csv(self.folder / "history.csv", list(history[-1]), history)

        logs = os.fspath(self.folder / "tensorboard")
        own = [
            keras.callbacks.LambdaCallback(on_epoch_end=write_history),
            keras.callbacks.TensorBoard(logs, write_graph=False, update_freq="epoch"),
        ]
        if self.config.front_end.frequencies is not None:  # Pictures over hertz.
            if not state().epoch:
                write_spectrograms(logs, sources["train"])
            few = few_clips(sources["validation"])
            own.append(ActivationLog(logs, *few, self.config.train.epochs))
        callbacks = [*own, *callbacks]
        end = training.train(
            self.config,
            sources,
            num_classes,
            self.checkpoints,
            callbacks,
            self.build(),
            strategy,
        )
        figure = training.curve_figure(end.history, self.config.train)
        plots.save_figure(figure, self.folder / "training.png")
        return end

    def build(self):
        """What builds the training model; another model's weights may be in it."""
        from lca_keras.models.factory import build_training_model
        from lca_keras.workflow import training

        exported = self.config.train.continue_from
        # Once an epoch is finished, its checkpoint has what was learned before.
        begun = training.TrainingState.load(self.checkpoints).epoch
        if exported is None or begun:
            return build_training_model
        from lca_keras.exports import savedmodel, versions

        exported = pathlib.Path(exported)
        network = savedmodel.read_network(exported)
        known = files.read_json(exported / versions.METADATA)["artists"]
        artists = split.artists_of(self.folder / "split.csv")
        return training.continued(build_training_model, network, known, artists)

    def calibrate(self, validation, num_classes):
        """Fits the temperature of the best epoch's model on validation clips.

        Leaves `model.keras`; returns that `LCAModel`, in float32.
        """
        from lca_keras.base import metrics
        from lca_keras.evaluation import scoring
        from lca_keras.workflow import training

        # Another network's is no use, should this one come to no gallery.
        (self.folder / "gallery.json").unlink(missing_ok=True)
        model = training.best_model(self.config, num_classes, self.checkpoints)
        predictions = scoring.Predictor(validation)(model)
        model.temperature = metrics.fit_temperature(
            predictions.outputs["logits"], predictions.labels
        )
        with files.atomic_path(self.folder / "model.keras") as temporary:
            model.save(temporary)
        state = training.TrainingState.load(self.checkpoints)
        results = {
            "best_epoch": state.best_epoch,
            "temperature": model.temperature,
            "parameters": model.backbone.count_params(),
        }
        add_results(self.folder, results)
        return model

    def set_up_gallery(self, model, sources, artists):
        """Sets up who is nobody of the artists.

        Leaves `gallery.json`, and `open_set` in `metrics.json`.

        Args:
            model: `lca_keras.models.LCAModel`, calibrated.
            sources: Dict from part to `lca_keras.data.clips.ClipSource`: of `"train"`,
                `"validation"` and, to be measured too, `"test"`.
            artists: List of class names.

        Returns:
            `lca_keras.voices.gallery.Gallery`, and the similarities of known songs and
            clips, for `measure_strangers`.

        Raises:
            UserError: Some artist has no training clip.
        """
        from lca_keras.voices import strangers

        there = set(sources["train"].labels.values())
        lacking = [name for n, name in enumerate(artists) if n not in there]
        if lacking:
            raise UserError(f"no training songs of {', '.join(lacking)} are there")
        network, settings = model.backbone, self.config.open_set
        gallery, known, accuracy = strangers.fit(
            network, sources, settings.false_alarm, self.config.train.seed
        )
        files.write_json(self.folder / "gallery.json", gallery.to_dict())
        told = {
            "false_alarm": settings.false_alarm,
            "threshold": gallery.threshold,
            "detector": accuracy,
        }
        if "test" in sources:
            heard = strangers.describe_clips(network, sources["test"], gallery.detector)
            found = strangers.verdicts(gallery, heard, model.temperature)
            told["test"] = strangers.shares(found)
        self._add_open_set(told)
        return gallery, known

    def measure_strangers(
        self, model, gallery, known, sources, artists, strange=None, callbacks=()
    ):
        """Measures what a run makes of singers whom it does not know.

        These are songs that were given, or artists whom a side training leaves out; its
        result is kept, since it depends on the configuration alone. Leaves `strangers`
        in `open_set` of `metrics.json`.

        Args:
            model: `lca_keras.models.LCAModel`, calibrated.
            gallery: What `set_up_gallery` returned.
            known: The same.
            sources: Dict from part to `lca_keras.data.clips.ClipSource`.
            artists: List of class names.
            strange: Optional `ClipSource` of songs by strangers.
            callbacks: Keras callbacks of the side training.

        Raises:
            UserError: The side training has failed.
        """
        from lca_keras.voices import strangers
        from lca_keras.workflow import side_training

        if strange is not None:
            heard = strangers.describe_clips(model.backbone, strange, gallery.detector)
            told = strangers.measure(gallery, known, heard, model.temperature)
            self._add_open_set({"strangers": {"given": True, **told}})
            return
        chosen, config = side_training.left_out(artists, self.config), self.config
        before = files.read_json(self.folder / "metrics.json")["open_set"]
        before = before.get("strangers") or {}
        asked = {"artists": chosen, "epochs": config.side_epochs}
        if not chosen or asked.items() <= before.items():
            return
        folder = self.folder / "side-training"
        told = side_training.side_training(config, sources, artists, folder, callbacks)
        self._add_open_set({"strangers": told})
        shutil.rmtree(folder, ignore_errors=True)

    def _add_open_set(self, told):
        before = files.read_json(self.folder / "metrics.json").get("open_set", {})
        add_results(self.folder, {"open_set": {**before, **told}})

    @property
    def gallery(self):
        """The `lca_keras.voices.gallery.Gallery` of a run; `None` if it has none."""
        path = self.folder / "gallery.json"
        if not path.exists():
            return None
        return Gallery.from_dict(files.read_json(path))

    def load_model(self):
        """Returns the calibrated model of a finished run, and its artists.

        Raises:
            UserError: The run is not finished.
        """
        import keras

        import lca_keras.models  # noqa: F401  Registers the saved model's classes.

        path, results = self.folder / "model.keras", self.folder / "metrics.json"
        if not path.exists() or not results.exists():
            raise UserError(
                f"{self.folder} is not finished. Continue it with "
                f"`python -m lca_keras.fit --resume {self.folder}`."
            )
        return keras.saving.load_model(path), files.read_json(results)["artists"]

    def explainer(self, layer=None, separator=None):
        """The `lca_keras.explanation.explainer.Explainer` of a finished run.

        Args:
            layer: Optional layer whose maps are taken.
            separator: Optional name or folder of what makes missing stems.

        Raises:
            UserError: The run is not finished, or its network has no such layer.
        """
        from lca_keras.explanation.explainer import Explainer

        model, artists = self.load_model()
        listed, moved = {}, None
        try:
            if self.source.data:
                listed = {song.path: song for song in self.source.songs()}
        except (UserError, OSError) as error:
            moved = str(error)
        return Explainer(
            model.main_branch(),
            artists,
            self.config,
            layer,
            separator,
            self.source.separator,
            model,
            listed,
            split.parts_by_name(self.folder / "split.csv"),
            moved,
        )

    def export(self, model, artists, keep=None):
        """Exports the main branch of a calibrated, evaluated model as its next version.

        With `keep`, older versions than so many are deleted.

        Returns:
            `pathlib.Path` of the version.
        """
        from lca_keras.exports import versions
        from lca_keras.exports.export import export_model

        results = files.read_json(self.folder / "metrics.json")
        exported = export_model(
            model.main_branch(),
            artists,
            self.config,
            self.exports,
            self.folder.name,
            {name: results[name] for name in _ON_CARD if name in results},
            {"run": str(self.folder), "environment": environment(self.config)},
            self.gallery,
        )
        add_results(self.folder, {"export": str(exported)})
        if keep is not None:
            versions.prune(exported.parent, keep)
        return exported


def environment(config):
    """Returns what a paper or a colleague needs to repeat a run: versions, commit."""
    from importlib import metadata

    packages = ("lca-keras", "tensorflow", "keras", "numpy", "librosa", "soundfile")
    versions = {}
    for package in packages:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    commit = None
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        commit = subprocess.run(
            ["git", "rev-parse", "HEAD"],
            cwd=pathlib.Path(__file__).parent,
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()
    return {
        "created": datetime.datetime.now(datetime.timezone.utc).isoformat(
            timespec="seconds"
        ),
        "command": sys.argv,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": versions,
        "seed": config.train.seed,
        "commit": commit,
    }


def write_spectrograms(folder, source, count=4):
    """Writes the spectrograms of a few clips to a TensorBoard log folder."""
    import tensorflow as tf

    clips = dataclasses.replace(source, streams=(source.front_end.main.name,))
    mel, _ = next(iter(clips.ordered(count)))
    low, high = tf.reduce_min(mel), tf.reduce_max(mel)
    images = (mel - low) / (high - low + 1e-6)
    with tf.summary.create_file_writer(os.fspath(folder)).as_default():
        # Low frequencies at the bottom.
        tf.summary.image("mel_spectrogram", images[:, ::-1], step=0, max_outputs=count)


def few_clips(source, count=4):
    """The first clips of songs by so many artists, as a network takes them.

    Returns:
        A batch of clips, and their labels.
    """
    import keras

    chosen = {}
    for key, label in source.labels.items():
        chosen.setdefault(label, key)
    keys = list(chosen.values())[:count]
    few = dataclasses.replace(source, labels={key: source.labels[key] for key in keys})
    clips, labels = next(iter(few.ordered(few.num_clips)))
    first = [few.clips_by_song[key][0] for key in few.order]
    clips = keras.tree.map_structure(lambda tensor: tensor.numpy()[first], clips)
    return clips, labels.numpy()[first]


def evaluate(folder, model, sources, artists):
    """Scores, tables and pictures of some parts; leaves them and `metrics.json`.

    Args:
        folder: Folder to write to, of a run or another one.
        model: `lca_keras.models.LCAModel`, calibrated.
        sources: Dict from part to `ClipSource`.
        artists: List of class names.

    Returns:
        Dict from part to `lca_keras.evaluation.scoring.Evaluation`.
    """
    import tensorflow as tf

    from lca_keras.evaluation import scoring

    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    found = {}
    for part, source in sources.items():
        start = time.perf_counter()
        found[part] = scoring.evaluate(model, source)
        scoring.write_part(folder, part, found[part], artists, source.store.records)
        picture = (folder / f"confusion_{part}.png").read_bytes()
        with tf.summary.create_file_writer(str(folder / "tensorboard")).as_default():
            image = tf.io.decode_png(picture, channels=3)
            tf.summary.image(f"confusion_{part}", image[None], step=0)
        # Of the last part: the first one traces the graph.
        seconds = (time.perf_counter() - start) / len(source.labels)
    scores = {part: each.scores for part, each in found.items()}
    about = {"artists": artists, "seconds_per_song": seconds}
    add_results(folder, {**about, **scores})
    return found


def listen(folder, model, source, artists):
    """What a model listens to; leaves `voice_report.csv`, a picture and `metrics.json`.

    Args:
        folder: Folder to write to, of a run or another one.
        model: `lca_keras.models.LCAModel`.
        source: `lca_keras.data.clips.ClipSource` of a store with stems.
        artists: List of class names.

    Returns:
        `lca_keras.evaluation.voice_report.VoiceReport`.
    """
    from lca_keras.evaluation import voice_report

    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    report = voice_report.listen(model, source, artists)
    voice_report.write(folder, report, source.store.records)
    add_results(folder, {"voice_report": report.to_dict()})
    return report


def add_results(folder, results):
    """Adds entries to `metrics.json` of a folder."""
    path = pathlib.Path(folder, "metrics.json")
    kept = files.read_json(path) if path.exists() else {}
    files.write_json(path, {**kept, **results})
