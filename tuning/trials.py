"""One trial of a search: train with some weights, score on validation songs.

The first `warmup_epochs` train the main branch alone and do not depend on the loss
weights, so they are trained once for each seed and kept. A trial starts from there;
`lca_keras.callbacks` seed dropout and shuffling from the epoch's number, so it ends
where a run without this short cut would have ended.
"""

import dataclasses
import pathlib

import keras
import numpy as np

from lca_keras import callbacks, evaluate, files
from lca_keras.config import LossWeights
from lca_keras.models.factory import build_training_model
from tuning import space


@dataclasses.dataclass(frozen=True)
class Scores:
    """Validation scores of one seed of a trial.

    Attributes:
        frame_f1: Weighted F1 over clips of the best epoch.
        song_f1: Weighted F1 over songs of the best epoch.
        cf_frame_f1: Counterfactual branch's F1 over clips at that epoch, or `None`.
        attention_distance: Mean |A - A~| at that epoch, or `None`.
        epoch: That epoch, from 1.
    """

    frame_f1: float
    song_f1: float
    cf_frame_f1: float | None
    attention_distance: float | None
    epoch: int


class ValidationScores(keras.callbacks.Callback):
    """Scores every epoch on the validation songs, and remembers the best one's weights.

    Args:
        source: `lca_keras.data.pipeline.ClipSource` of the validation part.
        objective: `"frame_f1"` or `"song_f1"`.
        first: Int, epochs (from 0) before this one do not count.
        known: List of `Scores` of epochs trained before, best weights unknown.
    """

    def __init__(self, source, objective, first, known=()):
        super().__init__()
        self.source = source
        self.objective = objective
        self.first = first
        self.epochs = list(known)
        self.best_weights = None

    @property
    def best(self):
        """`Scores` of the best epoch; of equal ones the later, as in `fit`."""
        return max(
            self.epochs, key=lambda one: (getattr(one, self.objective), one.epoch)
        )

    def on_epoch_end(self, epoch, logs=None):
        """Runs the model over the validation songs."""
        if epoch < self.first:
            return
        scores, predictions = evaluate.evaluate_part(self.model, self.source)
        now = Scores(
            scores["frame"]["f1"],
            scores["song"]["f1"],
            scores.get("cf_frame", {}).get("f1"),
            predictions.attention_distance,
            epoch + 1,
        )
        self.epochs.append(now)
        if self.best is now:
            self.best_weights = self.model.get_weights()


class Trainer:
    """Trains and scores configurations that differ in what is searched.

    Args:
        folder: Folder of the search; warm-up models are kept in `warmup/`.
        sources: Dict with the `ClipSource` of `"train"` and of `"validation"`.
        num_classes: Int, number of artists.
        objective: `"frame_f1"` or `"song_f1"`, decides the best epoch.

    Raises:
        ValueError: `sources` holds another part. A search must not see test songs.
    """

    def __init__(self, folder, sources, num_classes, objective):
        if set(sources) != {"train", "validation"}:
            raise ValueError(
                "A search reads the training and the validation part, nothing else. "
                f"Received: {sorted(sources)}"
            )
        self.folder = pathlib.Path(folder)
        self.sources = sources
        self.num_classes = num_classes
        self.objective = objective
        self._kind, self._models = None, {}

    def train(self, config, seed, progress=None, resume=None, keep=None):
        """Trains one seed of a configuration.

        Args:
            config: `lca_keras.config.Config`.
            seed: Int, of initial weights, shuffling and dropout.
            progress: Optional Keras callback.
            resume: Optional `.keras` file that `keep` left, of the same configuration
                and seed, trained for fewer epochs.
            keep: Optional `epoch-NNNN.keras` to write the last epoch's model to.

        Returns:
            Tuple of `Scores` of the best epoch after the warm-up, and the model at
            that epoch (at the last one, if the best came before `resume`). The model
            is good until the next call, which may train it anew.

        Raises:
            lca_keras.callbacks.DivergenceError: The loss became NaN.
        """
        config = config.replace(train={"seed": seed})
        train = config.train
        first, known, start = 0, [], resume
        if resume is not None:
            rows = files.read_json(resume.with_suffix(".json"))
            known = [Scores(**row) for row in rows]
        elif train.method != "none" and train.warmup_epochs:
            start = self._warm_up(config, progress)
        model = self._fresh_model(config)
        if start is not None:
            first = _copy_state(start, model)
        # The plain network is scored after as many epochs: the same choice of epochs.
        validation = ValidationScores(
            self.sources["validation"], self.objective, train.warmup_epochs, known
        )
        self._fit(model, config, first, train.epochs, [validation], progress)
        if keep is not None:
            _save(model, keep)
            rows = [dataclasses.asdict(scores) for scores in validation.epochs]
            files.write_json(keep.with_suffix(".json"), rows)
        if validation.best_weights is not None:
            model.set_weights(validation.best_weights)
        return validation.best, model

    def _fresh_model(self, config):
        """An untrained model; one that was used before, if its graph can be.

        Tracing takes as long as an epoch or two of a small corpus. What a search
        changes from trial to trial, a compiled step reads from variables.
        """
        train = config.train
        same = {"epochs": 1, "warmup_epochs": 0, "learning_rate": 0.1, "seed": 0}
        kind = dataclasses.replace(config, loss=LossWeights()).replace(train=same)
        if kind != self._kind:
            # Hundreds of models pass through one process.
            keras.utils.clear_session()
            self._kind, self._models = kind, {}
        if train.seed not in self._models:
            keras.utils.set_random_seed(train.seed)
            model = build_training_model(config, self.num_classes)
            self._models[train.seed] = model, [v.numpy() for v in _state(model)]
        model, untrained = self._models[train.seed]
        for variable, value in zip(_state(model), untrained, strict=True):
            variable.assign(value)
        model.optimizer.learning_rate.assign(train.learning_rate)
        model.loss_weights = config.loss
        return model

    def _fit(self, model, config, first, last, extra, progress):
        """Trains epochs `first` to before `last`."""
        train = config.train
        source = self.sources["train"]
        model.fit(
            source.training(train.batch_size, train.seed, first, last),
            steps_per_epoch=source.steps(train.batch_size),
            initial_epoch=first,
            epochs=last,
            callbacks=[
                callbacks.WarmUp(train.warmup_epochs),
                callbacks.EpochSeed(train.seed),
                callbacks.StopOnDivergence(),
                *extra,
                *([progress] if progress is not None else []),
            ],
            shuffle=False,  # The pipeline shuffles.
            verbose=0,
        )

    def _warm_up(self, config, progress):
        """The model after the warm-up of a seed, trained or found."""
        train = config.train
        # All that the warm-up depends on, apart from what one search has in common.
        kept = self.folder / "warmup" / f"seed-{train.seed}-lr-{train.learning_rate!r}"
        wanted = kept / f"epoch-{train.warmup_epochs:04d}.keras"
        with files.lock(_made(kept) / ".lock"):
            if wanted.exists():
                return wanted
            done = [int(path.stem.split("-")[1]) for path in kept.glob("epoch-*.keras")]
            first = max(
                (epoch for epoch in done if epoch < train.warmup_epochs), default=0
            )
            model = self._fresh_model(config)
            if first:
                _copy_state(kept / f"epoch-{first:04d}.keras", model)
            self._fit(model, config, first, train.warmup_epochs, [], progress)
            _save(model, wanted)
        return wanted


def _state(model):
    """All that training changes."""
    return [*model.variables, *model.optimizer.variables]


def _made(folder):
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _save(model, path):
    with files.atomic_path(path) as temporary:
        model.save(temporary)


def _copy_state(path, model):
    """Takes weights and optimizer state over; returns the number of epochs trained.

    Loss weights, dropout rates and learning rate are those of `model`.
    """
    saved = keras.saving.load_model(path)
    model.set_weights(saved.get_weights())
    rate = float(model.optimizer.learning_rate)
    for target, source in zip(
        model.optimizer.variables, saved.optimizer.variables, strict=True
    ):
        target.assign(source)
    model.optimizer.learning_rate.assign(rate)
    return int(path.stem.split("-")[1])


def mean_score(scores, objective):
    """Mean objective over seeds."""
    return float(np.mean([getattr(one, objective) for one in scores]))


def trial_config(values, config):
    """Configuration of a trial; Hyperband's own value decides the epochs.

    Args:
        values: Dict of a trial's hyperparameters.
        config: `lca_keras.config.Config` of the search.

    Returns:
        `lca_keras.config.Config`.
    """
    config = space.apply(values, config)
    budget = values.get(space.BUDGET)
    if budget:
        epochs = config.train.warmup_epochs + int(budget)
        config = config.replace(train={"epochs": epochs})
    return config
