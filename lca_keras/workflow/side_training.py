"""A side training without some artists, who are then strangers to the model."""

import dataclasses

import numpy as np

from lca_keras.base.errors import UserError
from lca_keras.voices import strangers
from lca_keras.workflow import training


def left_out(artists, config):
    """Artists that a side training leaves out, sorted; none where there are too few.

    Three at least stay. The seed of a `lca_keras.base.config.Config` draws them.
    """
    share, seed = config.open_set.left_out, config.train.seed
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
    training.train(short, few, len(kept), folder, callbacks)
    model = training.best_model(short, len(kept), folder)
    false_alarm, seed = config.open_set.false_alarm, config.train.seed
    gallery, known, _ = strangers.fit(model.backbone, few, false_alarm, seed)
    others = dataclasses.replace(sources["validation"], labels=others)
    heard = strangers.describe_clips(model.backbone, others, gallery.detector)
    found = strangers.measure(gallery, known, heard, model.temperature)
    return {"artists": strange, "epochs": short.train.epochs, **found}
