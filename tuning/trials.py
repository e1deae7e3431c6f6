"""The trials of a search: train with some weights, score on validation songs.

Warm-ups do not depend on the loss weights, so they are trained once for each seed. A
trial goes on from there, to the weights in which `fit` ends with its configuration.
"""

import collections
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
from tuning import journal, space, study

# A trial that was begun so often without an end is taken for failed.
_ATTEMPTS = 8
_BEGUN = "attempts.json"


def scores_of(state):
    """Validation scores of a training's best epoch, counted from 1, for JSON.

    `frame_f1` and `song_f1` are weighted F1 over clips and over songs; `cf_frame_f1` of
    the counterfactual branch, and `attention_distance`, mean |A - A~|, may be `None`.
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

    `sources` has the `ClipSource` of `"train"` and of `"validation"`, and nothing else:
    a search must not see test songs. `warmup/` in the folder keeps warm-up models.
    """

    def __init__(self, folder, sources, num_classes):
        if set(sources) != {"train", "validation"}:
            raise ValueError(
                "A search reads the training and the validation part, nothing else. "
                f"Received: {sorted(sources)}"
            )
        self.folder = pathlib.Path(folder)
        self.sources, self.num_classes = sources, num_classes
        self._kind, self._models = None, {}

    def train(self, config, folder, callbacks=(), go_on_from=None):
        """Trains a `Config` with its checkpoints in a folder; returns its `scores_of`.

        `go_on_from` is a folder of checkpoints of the same configuration, trained for
        fewer epochs; without one a shared warm-up is the beginning.
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
            changing = [*model.variables, *model.optimizer.variables]
            self._models[train.seed] = model, [(v, v.numpy()) for v in changing]
        model, untrained = self._models[train.seed]
        for variable, value in untrained:
            variable.assign(value)
        model.optimizer.learning_rate.assign(train.learning_rate)
        model.loss_weights = config.loss
        return model


class _DeadlyTrial(Exception):
    """A trial in which process after process has died."""


def run_trials(part, sources, num_classes, callbacks_of):
    """Runs the trials of a `tuning.study.Study` until there are none left.

    `callbacks_of` gives Keras callbacks for a trial's id and a seed.
    """
    search = study.Search.load(part.folder)
    trainer = Trainer(part.folder, sources, num_classes)
    with journal.beating(part.folder / "workers", part.worker):
        while (trial := part.ask()) is not None:
            part.tell(trial, *_run_trial(search, trainer, trial, callbacks_of))


def _run_trial(search, trainer, trial, callbacks_of):
    """Trains what is missing of a trial; finished seeds are read.

    Returns the mean objective, or `None` if the trial failed, and why it did: its
    weights make training diverge, or memory ran out. The search goes on then.
    """
    import tensorflow as tf

    values = trial.hyperparameters.values
    config = space.apply(values, search.base)
    if budget := values.get(space.BUDGET):  # Hyperband decides the epochs.
        epochs = config.train.warmup_epochs + int(budget)
        config = config.replace(train={"epochs": epochs})
    here = trainer.folder / "trials" / trial.trial_id
    here.mkdir(parents=True, exist_ok=True)
    scores = []
    try:
        _count_attempt(here)
        for seed in range(config.train.seed, config.train.seed + search.seeds):
            seeded = config.replace(train={"seed": seed})
            cell = here / f"seed-{seed}"
            watching = callbacks_of(trial.trial_id, seed)
            work = functools.partial(_run_seed, trainer, seeded, cell, values, watching)
            found = cells.cell(cell, seeded.to_dict(), work)
            scores.append(found[config.train.objective])
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
    """Trains one seed of a trial; TensorBoard's HParams are told, too."""
    import tensorflow as tf
    from tensorboard.plugins.hparams import api

    promoted = values.get("tuner/trial_id")  # By Hyperband, from a shorter trial.
    shorter = promoted and here.parent.parent / promoted / here.name / "checkpoints"
    scores = trainer.train(config, here / "checkpoints", callbacks, shorter)
    searched = {**vars(config.loss), "seed": config.train.seed}
    for name, place in space.FIELDS.items():
        section, field = place.split(".")
        if section != "augment" or "remix" in config.augment.kinds:
            searched[name] = getattr(getattr(config, section), field)
    with tf.summary.create_file_writer(os.fspath(here)).as_default():
        api.hparams(searched)
        for name, value in scores.items():
            if value is not None:
                tf.summary.scalar(name, value, step=scores["epoch"])
    return scores


def _count_attempt(here):
    """Raises if a trial was begun too often without getting on."""
    path, root = here / _BEGUN, here.parent.parent
    states = [*here.glob("*/*/state.json"), *root.glob("warmup/*/*/state.json")]
    stands = {str(p.relative_to(root)): files.read_json(p)["epoch"] for p in states}
    found = map(files.read_json, here.glob("seed-*/cell.json"))
    stands["finished"] = sum("result" in cell for cell in found)
    before = files.read_json(path) if path.exists() else {}
    count = before["count"] if before.get("stands") == stands else 0
    if count >= _ATTEMPTS:
        raise _DeadlyTrial(
            f"begun {count} times, and each time its process ended before an epoch did "
            "(for lack of memory?)"
        )
    files.write_json(path, {"count": count + 1, "stands": stands})


# A trial that has ended; `seeds` as of `scores_of`, no `score` if it failed.
Result = collections.namedtuple("Result", "trial values score reason seeds")


def best_of(folder, rows, search):
    """The best `Result` of a search, and its `Config` with all epochs."""
    done = [row for row in rows if row.score is not None]
    if not done:
        raise UserError(f"{folder}: no trial succeeded")
    best = max(done, key=lambda row: row.score)
    return best, space.apply(best.values, search.base)


def results(folder, events):
    """Returns the `Result`s of a search's trials, from the events of its journal."""
    begun, rows = {}, []
    for event in events:
        trial = event["trial"]
        if event["event"] == "start":
            begun[trial] = event["values"]
        elif event["event"] == "end":
            paths = pathlib.Path(folder, "trials", trial).glob("seed-*/cell.json")
            found = map(files.read_json, sorted(paths))
            seeds = [cell["result"] for cell in found if "result" in cell]
            reason = event["message"] or ""
            rows.append(Result(trial, begun[trial], event["score"], reason, seeds))
    return rows
