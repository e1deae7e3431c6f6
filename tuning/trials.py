"""One trial of a search: train with some weights, score on validation songs.

The first `warmup_epochs` train the main branch alone and do not depend on the loss
weights, so they are trained once for each seed and kept. A trial goes on from there and
ends in the weights in which `fit` ends with the same configuration.
"""

import dataclasses
import functools
import os
import pathlib
import shutil

import keras

from lca_keras.base import console, files
from lca_keras.base.errors import UserError
from lca_keras.base.sections import AugmentConfig, LossWeights
from lca_keras.models import callbacks
from lca_keras.models.factory import build_training_model
from lca_keras.workflow import cells, training, warm_up
from tuning import space

# A trial that was begun so often without an end is taken for failed.
_ATTEMPTS = 8
_BEGUN = "attempts.json"


def scores_of(state):
    """Validation scores of a `lca_keras.workflow.training.TrainingState`.

    Returns:
        Dict for JSON, of the best epoch: `frame_f1` and `song_f1`, weighted F1 over
        clips and over songs; `cf_frame_f1` of the counterfactual branch over clips and
        `attention_distance`, mean |A - A~|, or `None`; `epoch`, from 1.
    """
    logs = state.best_logs
    return {
        "frame_f1": logs["val_f1"],
        "song_f1": logs["val_song_f1"],
        "cf_frame_f1": logs.get("val_cf_f1"),
        "attention_distance": logs.get("val_att_term"),
        "epoch": state.best_epoch,
    }


class Trainer:
    """Trains and scores configurations that differ in what is searched.

    Args:
        folder: Folder of the search; warm-up models are kept in `warmup/`.
        sources: Dict with the `ClipSource` of `"train"` and of `"validation"`.
        num_classes: Int, number of artists.

    Raises:
        ValueError: `sources` holds another part. A search must not see test songs.
    """

    def __init__(self, folder, sources, num_classes):
        if set(sources) != {"train", "validation"}:
            raise ValueError(
                "A search reads the training and the validation part, nothing else. "
                f"Received: {sorted(sources)}"
            )
        self.folder = pathlib.Path(folder)
        self.sources = sources
        self.num_classes = num_classes
        self._kind, self._models = None, {}

    def train(self, config, folder, callbacks=(), go_on_from=None):
        """Trains a `Config`, seed included, with its checkpoints in a folder.

        `go_on_from` is a folder of checkpoints of the same configuration, trained for
        fewer epochs; without one a shared warm-up is the beginning.

        Returns:
            Dict, as `scores_of`.

        Raises:
            lca_keras.models.callbacks.DivergenceError: The loss became NaN.
        """
        if go_on_from is not None:
            training.go_on_from(folder, go_on_from)
        material = self.sources, self.num_classes
        shared = self.folder / "warmup"
        warm_up.begin(config, *material, folder, shared, callbacks, self._build)
        state = training.train(config, *material, folder, callbacks, self._build)
        return scores_of(state)

    def _build(self, config, num_classes):
        """An untrained model; one that was used before, if its graph can be.

        Tracing takes as long as an epoch or two of a small corpus. What a search
        changes from trial to trial, a compiled step reads from variables.
        """
        train = config.train
        same = {"epochs": 1, "warmup_epochs": 0, "learning_rate": 0.1, "seed": 0}
        # Clips are augmented outside of it.
        kind = dataclasses.replace(config, loss=LossWeights(), augment=AugmentConfig())
        kind = kind.replace(train=same)
        if kind != self._kind:
            # Hundreds of models pass through one process.
            keras.utils.clear_session()
            self._kind, self._models = kind, {}
        if train.seed not in self._models:
            model = build_training_model(config, num_classes)
            self._models[train.seed] = model, [v.numpy() for v in _state(model)]
        model, untrained = self._models[train.seed]
        for variable, value in zip(_state(model), untrained, strict=True):
            variable.assign(value)
        model.optimizer.learning_rate.assign(train.learning_rate)
        model.loss_weights = config.loss
        return model


def _state(model):
    """All that training changes."""
    return [*model.variables, *model.optimizer.variables]


class _DeadlyTrial(Exception):
    """A trial in which process after process has died."""


def run_trial(folder, search, trainer, trial_id, values, callbacks_of):
    """Trains what is missing of a trial; finished seeds are read.

    Args:
        folder: Folder of the search.
        search: `tuning.study.Search`.
        trainer: `Trainer`.
        trial_id: Identifier of the trial.
        values: Dict of its hyperparameters.
        callbacks_of: Function of a seed that returns further Keras callbacks.

    Returns:
        Tuple of the mean objective, or `None` if the trial failed, and why it did:
        its weights make training diverge, or memory ran out. The search goes on then.
    """
    import tensorflow as tf

    config = trial_config(values, search.base)
    here = pathlib.Path(folder, "trials", trial_id)
    here.mkdir(parents=True, exist_ok=True)
    scores = []
    try:
        _count_attempt(here)
        for seed in range(config.train.seed, config.train.seed + search.seeds):
            seeded = config.replace(train={"seed": seed})
            cell = here / f"seed-{seed}"
            work = functools.partial(
                _run_seed, trainer, seeded, cell, values, callbacks_of(seed)
            )
            found = cells.cell(cell, seeded.to_dict(), work)
            scores.append(found[search.objective])
            if space.BUDGET not in values:  # Otherwise a longer trial may go on.
                shutil.rmtree(cell / "checkpoints", ignore_errors=True)
    except (callbacks.DivergenceError, _DeadlyTrial) as error:
        why = str(error)
    except (MemoryError, tf.errors.ResourceExhaustedError) as error:
        why = f"out of memory: {(str(error).splitlines() or [''])[0]}"
    except Exception as error:
        if console.is_interrupt(error):
            raise KeyboardInterrupt from error
        raise
    else:
        return sum(scores) / len(scores), None
    (here / _BEGUN).unlink(missing_ok=True)  # It may be tried once more.
    return None, why


def _run_seed(trainer, config, here, values, callbacks):
    """Trains one seed of a trial in its folder; returns its scores for JSON."""
    promoted = values.get("tuner/trial_id")  # By Hyperband, from a shorter trial.
    shorter = promoted and here.parent.parent / promoted / here.name / "checkpoints"
    scores = trainer.train(config, here / "checkpoints", callbacks, shorter)
    _write_hparams(here, config, scores)
    return scores


def _count_attempt(here):
    """Raises if a trial was begun too often without getting on."""
    path, root = here / _BEGUN, here.parent.parent
    states = [*here.glob("*/*/state.json"), *root.glob("warmup/*/*/state.json")]
    epochs = {str(p.relative_to(root)): files.read_json(p)["epoch"] for p in states}
    cells = map(files.read_json, here.glob("seed-*/cell.json"))
    stands = {**epochs, "finished": sum("result" in cell for cell in cells)}
    before = files.read_json(path) if path.exists() else {}
    count = before["count"] if before.get("stands") == stands else 0
    if count >= _ATTEMPTS:
        raise _DeadlyTrial(
            f"begun {count} times, and each time its process ended before an epoch did "
            "(for lack of memory?)"
        )
    files.write_json(path, {"count": count + 1, "stands": stands})


def _write_hparams(folder, config, scores):
    """Adds a training to TensorBoard's HParams."""
    import tensorflow as tf
    from tensorboard.plugins.hparams import api

    searched = {**vars(config.loss), "seed": config.train.seed}
    for name, place in space.FIELDS.items():
        section, field = place.split(".")
        if section != "augment" or "remix" in config.augment.kinds:
            searched[name] = getattr(getattr(config, section), field)
    with tf.summary.create_file_writer(os.fspath(folder)).as_default():
        api.hparams(searched)
        for name, value in scores.items():
            if value is not None:
                tf.summary.scalar(name, value, step=scores["epoch"])


def trial_config(values, config):
    """The `Config` of a trial; Hyperband's own value decides the epochs."""
    config = space.apply(values, config)
    budget = values.get(space.BUDGET)
    if budget:
        epochs = config.train.warmup_epochs + int(budget)
        config = config.replace(train={"epochs": epochs})
    return config


@dataclasses.dataclass(frozen=True)
class Result:
    """A trial that has ended; `seeds` as of `scores_of`, no `score` if it failed."""

    trial: str
    values: dict
    score: float | None
    reason: str
    seeds: list


def best_of(folder, rows, search):
    """The best `Result` of a `tuning.study.Search`, and its `Config` with all epochs.

    Raises:
        UserError: None of its trials succeeded.
    """
    done = [row for row in rows if row.score is not None]
    if not done:
        raise UserError(f"{folder}: no trial succeeded")
    best = max(done, key=lambda row: row.score)
    values = {k: v for k, v in best.values.items() if not k.startswith("tuner/")}
    return best, trial_config(values, search.base)


def results(folder, events):
    """Returns the `Result`s of a search's trials, from the events of its journal."""
    begun, rows = {}, []
    for event in events:
        if event["event"] == "start":
            begun[event["trial"]] = event["values"]
        elif event["event"] == "end":
            trial = event["trial"]
            here = pathlib.Path(folder, "trials", trial)
            cells = map(files.read_json, sorted(here.glob("seed-*/cell.json")))
            seeds = [cell["result"] for cell in cells if "result" in cell]
            reason = event["message"] or ""
            rows.append(Result(trial, begun[trial], event["score"], reason, seeds))
    return rows
