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

from lca_keras import files, openset, plots
from lca_keras.config import Config
from lca_keras.corpus import DataSource
from lca_keras.data import split
from lca_keras.data.store import damaged_shards_message
from lca_keras.errors import UserError

# Entries of `metrics.json`.
_ON_CARD = ("validation", "test", "voice_report", "open_set")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """A run folder and what was asked of it.

    Attributes:
        folder: `pathlib.Path` of the run folder; its name is the model's.
        config: `lca_keras.config.Config`, all that decides the result.
        source: `lca_keras.corpus.DataSource`, where the data is.
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
        """Trains the epochs that are left; see `lca_keras.training.train`.

        Leaves checkpoints, `history.csv`, `training.png` and TensorBoard logs, what
        speaks for the artists of a few validation clips among them.
        """
        import keras

        from lca_keras import training
        from lca_keras.callbacks import ActivationLog

        def state():
            return training.TrainingState.load(self.checkpoints)

        def write_history(epoch, logs):
            history = state().history
            files.write_csv(self.folder / "history.csv", list(history[-1]), history)

        logs = os.fspath(self.folder / "tensorboard")
        if not state().epoch:
            write_spectrograms(logs, sources["train"])
        callbacks = [
            keras.callbacks.LambdaCallback(on_epoch_end=write_history),
            keras.callbacks.TensorBoard(logs, write_graph=False, update_freq="epoch"),
            ActivationLog(
                logs, *few_clips(sources["validation"]), self.config.train.epochs
            ),
            *callbacks,
        ]
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
        from lca_keras import training
        from lca_keras.models.factory import build_training_model

        exported = self.config.train.continue_from
        # Once an epoch is finished, its checkpoint has what was learned before.
        begun = training.TrainingState.load(self.checkpoints).epoch
        if exported is None or begun:
            return build_training_model
        from lca_keras.export import savedmodel, versions

        exported = pathlib.Path(exported)
        network = savedmodel.read_network(exported)
        known = files.read_json(exported / versions.METADATA)["artists"]
        artists = split.artists_of(self.folder / "split.csv")
        return training.continued(build_training_model, network, known, artists)

    def calibrate(self, validation, num_classes):
        """Fits the temperature of the best epoch's model on validation clips.

        Leaves `model.keras`; returns that `LCAModel`, in float32.
        """
        from lca_keras import evaluation, metrics, training

        # Another network's is no use, should this one come to no gallery.
        (self.folder / "gallery.json").unlink(missing_ok=True)
        model = training.best_model(self.config, num_classes, self.checkpoints)
        predictions = evaluation.Predictor(validation)(model)
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
            `lca_keras.openset.Gallery`, and the similarities of known songs and clips,
            for `measure_strangers`.

        Raises:
            UserError: Some artist has no training clip.
        """
        from lca_keras import strangers

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
            heard = strangers.hear(network, sources["test"], gallery.detector)
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
        from lca_keras import strangers

        if strange is not None:
            heard = strangers.hear(model.backbone, strange, gallery.detector)
            told = strangers.measure(gallery, known, heard, model.temperature)
            self._add_open_set({"strangers": {"given": True, **told}})
            return
        chosen, config = strangers.left_out(artists, self.config), self.config
        before = files.read_json(self.folder / "metrics.json")["open_set"]
        before = before.get("strangers") or {}
        asked = {"artists": chosen, "epochs": config.side_epochs}
        if not chosen or asked.items() <= before.items():
            return
        folder = self.folder / "side-training"
        told = strangers.side_training(config, sources, artists, folder, callbacks)
        self._add_open_set({"strangers": told})
        shutil.rmtree(folder, ignore_errors=True)

    def _add_open_set(self, told):
        before = files.read_json(self.folder / "metrics.json").get("open_set", {})
        add_results(self.folder, {"open_set": {**before, **told}})

    @property
    def gallery(self):
        """The `lca_keras.openset.Gallery` of a run; `None` if it has none."""
        path = self.folder / "gallery.json"
        if not path.exists():
            return None
        return openset.Gallery.from_dict(files.read_json(path))

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

    def export(self, model, artists, keep=None):
        """Exports the main branch of a calibrated, evaluated model as its next version.

        With `keep`, older versions than so many are deleted.

        Returns:
            `pathlib.Path` of the version.
        """
        from lca_keras.export import export_model, versions

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

    clips = dataclasses.replace(source, melody=False)
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
        Dict from part to `lca_keras.evaluation.Evaluation`.
    """
    import tensorflow as tf

    from lca_keras import evaluation

    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    found = {}
    for part, source in sources.items():
        start = time.perf_counter()
        found[part] = evaluation.evaluate(model, source)
        evaluation.write_part(folder, part, found[part], artists, source.store.records)
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
        `lca_keras.voice_report.VoiceReport`.
    """
    from lca_keras import voice_report

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


# === Cells ===


def cell(folder, settings, compute, wait=True):
    """Something that is computed once, whoever asks for it: the scores of a training.

    Processes on all machines that share the folder, and whose file system locks files
    for all of them, may ask at the same time; one computes. A killed one leaves what it
    had in the folder, and the next one goes on there.

    Args:
        folder: Folder of the cell; gets `cell.json`.
        settings: Dict for JSON, all that decides the result (a configuration with its
            seed). What was computed here with others is deleted.
        compute: Function without arguments that returns a dict for JSON.
        wait: Whether to wait for a process that is computing this cell.

    Returns:
        What `compute` returned, now or in the past; `None` if another process is at it
        and `wait` is false.

    Raises:
        UserError: The folder holds something else.
    """
    folder = pathlib.Path(folder)
    path = folder / "cell.json"

    def known():
        try:
            return files.read_json(path)
        except FileNotFoundError:
            return {}
        except ValueError as error:
            raise UserError(f"{path} is damaged ({error}): delete {folder}") from error

    def result_of(cell):
        same = cell.get("settings") == files.as_json(settings)
        return cell.get("result") if same else None

    if (result := result_of(known())) is not None:
        return result
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(files.lock(folder / ".lock", wait))
        except files.LockedError:
            return None
        cell = known()  # Another process may have been quicker.
        if (result := result_of(cell)) is not None:
            return result
        if cell.get("settings") != files.as_json(settings):
            if not cell and any(not p.name.startswith(".") for p in folder.iterdir()):
                raise UserError(f"{folder} is not empty and was not made for a result")
            # What lies here is of other settings: nobody may go on from it.
            files.clear(folder, keep=(".lock",))
            files.write_json(path, {"settings": settings})
        start = time.monotonic()
        result = compute()
        seconds = round(time.monotonic() - start, 2)
        files.write_json(
            path, {"settings": settings, "result": result, "seconds": seconds}
        )
    return result


def cells(wanted, poll_seconds=1.0):
    """Computes many cells, and leaves those to others that these are computing.

    Args:
        wanted: Dict from name to a tuple, the arguments of `cell` but `wait`.
        poll_seconds: Float, how often to look for those of others.

    Yields:
        Tuples of a name and its result, as they come.
    """
    missing = dict(wanted)
    while missing:
        before = len(missing)
        for name, arguments in list(missing.items()):
            result = cell(*arguments, wait=False)
            if result is not None:
                del missing[name]
                yield name, result
        if missing and len(missing) == before:
            time.sleep(poll_seconds)
