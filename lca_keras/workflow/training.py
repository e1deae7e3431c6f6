"""The training loop: one way to train a configuration, one rule for its best epoch.

`fit`, the search and whoever compares trainings call `train`. It goes on where its
folder of checkpoints says that it stopped, and ends in the weights in which an
uninterrupted training would have ended.
"""

import contextlib
import dataclasses
import pathlib
import shutil
import tempfile

import keras
import numpy as np

from lca_keras.base import files, metrics
from lca_keras.base.errors import UserError
from lca_keras.drawing import plots
from lca_keras.evaluation import scoring
from lca_keras.models import distribution
from lca_keras.models.callbacks import (
    EpochSeed,
    LossWeightLog,
    StopOnDivergence,
    WarmUp,
)
from lca_keras.models.factory import build_training_model
from lca_keras.voices import strangers

# The log that holds the score of each of `lca_keras.base.sections.OBJECTIVES`.
_LOGS = {"frame_f1": "val_f1", "song_f1": "val_song_f1"}


@dataclasses.dataclass
class TrainingState:
    """Where a training stands; `state.json` beside its checkpoints."""

    epoch: int = 0  # Number of finished epochs.
    best_epoch: int = 0  # From 1.
    last: str | None = None  # Files of models.
    best: str | None = None
    history: list = dataclasses.field(default_factory=list)  # Logs of each epoch.

    @classmethod
    def load(cls, folder):
        """Reads the state of a checkpoint folder; a new one if there is none."""
        path = pathlib.Path(folder, "state.json")
        if not path.exists():
            return cls()
        try:
            return cls(**files.read_json(path))
        except (ValueError, TypeError) as error:
            raise UserError(f"{path} is damaged ({error})") from error

    @property
    def best_logs(self):
        """Logs of the best epoch."""
        return self.history[self.best_epoch - 1]


def best_epoch(history, train):
    """The rule for the best epoch, from 1, of a `TrainConfig`'s history of logs.

    The best validation score, that of the configured objective, among the epochs after
    the warm-up; among all epochs as long as there is none after it. Of equal ones the
    later: it has trained longer on the full loss.
    """
    after = [row for row in history if row["epoch"] > train.warmup_epochs]
    score = _LOGS[train.objective]
    best = max(after or history, key=lambda row: (row[score], row["epoch"]))
    return best["epoch"]


class ValidationScores(keras.callbacks.Callback):
    """Adds to the logs what the model says of a source of validation clips.

    `val_f1` and `val_song_f1`, weighted F1 over clips and songs; `val_loss`, without
    the penalties on weights and an embedding loss; and with a counterfactual
    `val_cf_f1` and every term.
    """

    def __init__(self, source):
        super().__init__()
        self._predict = scoring.Predictor(source)

    def on_epoch_end(self, epoch, logs=None):
        """Runs the model over the validation songs."""
        predictions = self._predict(self.model)
        truth, classes = predictions.labels, self.model.backbone.num_classes

        def f1(labels, decided):
            return metrics.identification_scores(labels, decided, classes)["f1"]

        main = predictions.decide()
        terms = self.model.loss_terms(truth, predictions.outputs)
        logs["val_loss"] = float(self.model.weigh(terms))
        logs["val_f1"] = f1(truth, main.winners)
        logs["val_song_f1"] = f1(main.song_labels, main.votes)
        if "cf_logits" in predictions.outputs:
            logs["val_cf_f1"] = f1(truth, predictions.decide("cf_logits").winners)
            logs.update({f"val_{k}_term": float(v) for k, v in terms.items()})


class Checkpoint(keras.callbacks.Callback):
    """Keeps the last model and the best one, and the `TrainingState`, in a folder.

    After every epoch the model (weights, optimizer, configuration) is written, then
    `state.json` that names it, then what is no longer named is deleted. A kill at any
    moment leaves a state whose files are whole.
    """

    def __init__(self, folder, state, train):
        super().__init__()
        self.folder = pathlib.Path(folder)
        self.state = state
        self.train = train

    def on_epoch_end(self, epoch, logs=None):
        """Saves the model and the state."""
        logs = {name: float(value) for name, value in logs.items()}
        name = f"epoch-{epoch + 1:04d}.keras"
        with files.atomic_path(self.folder / name) as temporary:
            self.model.save(temporary)
        state = self.state
        state.epoch, state.last = epoch + 1, name
        state.history.append({"epoch": epoch + 1, **logs})
        best = best_epoch(state.history, self.train)
        if best == state.epoch:
            state.best_epoch, state.best = best, name
        files.write_json(self.folder / "state.json", dataclasses.asdict(state))
        for path in self.folder.glob("*epoch-*.keras"):  # Temporary ones too.
            if path.name not in (state.last, state.best):
                path.unlink()


def train(
    config,
    sources,
    num_classes,
    folder,
    callbacks=(),
    build=build_training_model,
    strategy=None,
):
    """Trains to the last epoch, from where `folder` stands; returns `TrainingState`.

    Args:
        config: `lca_keras.base.config.Config`.
        sources: Dict with the `lca_keras.data.clips.ClipSource` of `"train"` and of
            `"validation"`; other parts are not touched.
        num_classes: Number of artists.
        folder: Folder for checkpoints.
        callbacks: Further Keras callbacks; they come last and see all logs.
        build: Function like `build_training_model`.
        strategy: Optional `tf.distribute.Strategy` to train under.

    Raises:
        lca_keras.models.callbacks.DivergenceError: The loss became NaN.
    """
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    settings, source = config.train, sources["train"]
    state = TrainingState.load(folder)
    if state.epoch >= settings.epochs:
        return state
    # All seeds before any layer is made.
    keras.utils.set_random_seed(settings.seed)
    if settings.deterministic:
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()
    with strategy.scope() if strategy else contextlib.nullcontext():
        model = build(config, num_classes)
        if state.last:  # Weights and optimizer, but not what `config` decides.
            model.load_weights(folder / state.last)
            model.loss_weights = config.loss
            model.optimizer.learning_rate.assign(settings.learning_rate)
    course = state.epoch, settings.epochs
    how = settings.batch_size, settings.seed, *course, config.augment
    batches = source.training(*how)
    steps = source.steps(settings.batch_size)
    class_weight = _class_weights(settings, source, num_classes)
    with contextlib.ExitStack() as stack:
        if not distribution.is_chief(strategy):
            # Saving is done by all together; of the others nobody reads it.
            folder = stack.enter_context(tempfile.TemporaryDirectory())
        callbacks = [
            WarmUp(settings.warmup_epochs),
            EpochSeed(settings.seed),
            StopOnDivergence(),
            LossWeightLog(),
            ValidationScores(sources["validation"]),
            Checkpoint(folder, state, settings),
            *callbacks,
        ]
        if strategy is not None:
            how = steps, *course, class_weight, callbacks
            distribution.fit(strategy, model, batches, *how)
            return state
        model.fit(
            batches,
            steps_per_epoch=steps,
            initial_epoch=state.epoch,
            epochs=settings.epochs,
            class_weight=class_weight,
            callbacks=callbacks,
            shuffle=False,  # The pipeline shuffles.
            verbose=0,
        )
    return state


def continued(build, network, known, artists):
    """A function like `build` that begins with the weights of a network.

    It is one of the same configuration; `known` are its artists, `artists` those of the
    training.
    """
    places = [(n, known.index(name)) for n, name in enumerate(artists) if name in known]

    def begin(config, num_classes):
        model = build(config, num_classes)
        own = model.backbone
        of_classes = {id(weight) for weight in own.classifier.weights}
        for weight, other in zip(own.weights, network.weights, strict=True):
            value = np.array(other)
            if id(weight) in of_classes:
                learned, value = value, np.array(weight)
                for place, there in places:
                    value[..., place] = learned[..., there]
            weight.assign(value)
        return model

    return begin


def _class_weights(settings, source, num_classes):
    """Dict from class to the weight of its clips in the loss, or `None`."""
    if settings.class_weights == "none":
        return None
    from sklearn.utils.class_weight import compute_class_weight

    classes, labels = np.arange(num_classes), source.clip_labels
    weights = compute_class_weight("balanced", classes=classes, y=labels)
    return dict(enumerate(weights.tolist()))


def go_on_from(folder, other):
    """Lets a new training begin where another one stands, whose folder stays as it is.

    Nothing is done if `folder` has checkpoints, or `other` none.
    """
    folder, other = pathlib.Path(folder), pathlib.Path(other)
    state = TrainingState.load(other)
    if not state.epoch or (folder / "state.json").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    for name in {state.last, state.best}:
        with files.atomic_path(folder / name) as temporary:
            shutil.copyfile(other / name, temporary)
    files.write_json(folder / "state.json", dataclasses.asdict(state))


def curve_figure(history, train):
    """The course of a training over its epochs, a Matplotlib figure."""
    panels = {
        "loss": {"training": "loss", "validation": "val_loss"},
        "weighted F1": {
            "training clips": "f1",
            "validation clips": "val_f1",
            "validation songs": "val_song_f1",
            "validation clips, counterfactual": "val_cf_f1",
        },
    }
    epochs, best = [row["epoch"] for row in history], best_epoch(history, train)
    with plots.style():
        figure = plots.new_figure(11, 4)
        places = figure.subplots(1, len(panels))
        for axes, (title, curves) in zip(places, panels.items(), strict=True):
            for label, name in curves.items():
                if name in history[0]:
                    values = [row[name] for row in history]
                    axes.plot(epochs, values, ".-", label=label)
            if train.method != "none" and 0 < train.warmup_epochs < len(history):
                end = train.warmup_epochs + 0.5
                axes.axvline(end, c="gray", ls=":", label="end of the warm-up")
            axes.axvline(best, c="gray", lw=0.8, label=f"best epoch, {best}")
            axes.set_xlabel("epoch")
            axes.set_title(title)
            axes.legend(fontsize="small")
    return figure


def best_model(config, num_classes, folder):
    """The `LCAModel` of a training's best epoch.

    In float32, whatever it was trained in: weights are float32 under every policy,
    and scores are to be those of the export.
    """
    config = config.replace(train={"precision": "float32"})
    model = build_training_model(config, num_classes)
    model.load_weights(pathlib.Path(folder, TrainingState.load(folder).best))
    return model


def left_out(artists, config):
    """Artists that a side training leaves out, sorted; none where there are too few.

    Three at least stay. The seed of a `lca_keras.base.config.Config` draws them.
    """
    share, seed = config.gallery.left_out, config.train.seed
    count = min(max(1, round(share * len(artists))), len(artists) - 3)
    if share == 0 or count < 1:
        return []
    order = np.random.default_rng(seed).permutation(len(artists))
    return sorted(artists[number] for number in order[:count])


def side_training(config, sources, artists, folder, callbacks=()):
    """Trains a network without some artists, and measures what it makes of them.

    It begins from nothing, whatever `config` says: a network that is gone on from may
    know those whom this one is not to know. Returns a dict for JSON: `measure` of the
    left out artists' songs beside the others' validation songs, with `artists` left out
    and `epochs`.
    """
    strange = left_out(artists, config)
    kept = [artist for artist in artists if artist not in strange]
    # From class to class among those that stay.
    places = {artists.index(artist): n for n, artist in enumerate(kept)}
    short = config.replace(train={"epochs": config.side_epochs})

    few, others = {}, {}
    for part in ("train", "validation"):
        labels = sources[part].labels
        own = {key: places[n] for key, n in labels.items() if n in places}
        few[part] = dataclasses.replace(sources[part], labels=own)
        others |= {key: 0 for key, n in labels.items() if n not in places}
    if not few["validation"].labels:
        raise UserError("there are validation songs of those alone who are left out")
    train(short, few, len(kept), folder, callbacks)
    model = best_model(short, len(kept), folder)
    false_alarm, seed = config.gallery.false_alarm, config.train.seed
    gallery, known, _ = strangers.fit(model.backbone, few, false_alarm, seed)
    others = dataclasses.replace(sources["validation"], labels=others)
    heard = strangers.describe_clips(model.backbone, others, gallery.detector)
    found = strangers.measure(gallery, known, heard, model.temperature)
    return {"artists": strange, "epochs": short.train.epochs, **found}
