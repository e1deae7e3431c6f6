"""Warm-ups that trainings share: trained once for all that begin alike."""

import hashlib
import json
import pathlib

from lca_keras.base import files
from lca_keras.models.factory import build_training_model
from lca_keras.workflow import training

# Entries of a configuration that have no say in a warm-up.
_LATER = ("epochs", "warmup_epochs", "cf_dropout", "effect", "detach_counterfactual")


def begin(
    config,
    sources,
    num_classes,
    checkpoints,
    shared,
    callbacks=(),
    build=build_training_model,
):
    """Begins a training with the warm-up of all that begin alike, trained or found.

    A longer warm-up goes on from a shorter one. Of several processes that ask for the
    same one, one trains it. Nothing is done for a training that has begun, or that has
    no warm-up.

    `checkpoints` is the folder of the training, and `shared` that of all warm-ups; the
    rest is as for `lca_keras.workflow.training.train`.
    """
    train, begun = config.train, pathlib.Path(checkpoints, "state.json").exists()
    if begun or train.method == "none" or not 0 < train.warmup_epochs < train.epochs:
        return
    alike = pathlib.Path(shared, _digest(config, sources))
    wanted = alike / f"{train.warmup_epochs:04d}"
    wanted.mkdir(parents=True, exist_ok=True)
    with files.lock(alike / ".lock"):
        shorter = [p for p in alike.glob("[0-9]*") if p.name < wanted.name]
        if shorter:
            training.go_on_from(wanted, max(shorter))
        beginning = config.replace(train={"epochs": train.warmup_epochs})
        training.train(beginning, sources, num_classes, wanted, callbacks, build)
    training.go_on_from(checkpoints, wanted)


def _digest(config, sources):
    """What decides a warm-up, in ten hexadecimal digits."""
    settings = config.to_dict()
    # The songs of each part say it, wherever their division was written.
    settings["loss"] = settings["split"] = None
    for name in _LATER:
        del settings["train"][name]
    settings["songs"] = {
        part: sorted(
            (key, label, sources[part].store.records[key].content_hash)
            for key, label in sources[part].labels.items()
        )
        for part in ("train", "validation")
    }
    return hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:10]
