"""What people should know about a run and its data: lines to be shown."""

import os
import pathlib

import numpy as np

from lca_keras.base import files
from lca_keras.base.errors import UserError
from lca_keras.data import corpus


def of_source(source):
    """What a built-in corpus brings along that its folder alone does not say."""
    from lca_keras.corpora import synthesis

    data = source.data
    if own := data and os.path.isdir(data) and synthesis.own_split(data):
        yield (
            f"note: a built-in corpus; --data {own.with_name('manifest.csv')} knows "
            f"its stems, and --split-file {own} is its own split"
        )


def of_stems(config, songs):
    """That stems are at hand whose best use is not made."""
    from lca_keras.data.extraction import has_stem

    source, remixed = config.features.source, "remix" in config.augment.kinds
    if source == "stems" and not remixed:
        yield "note: the stems are not used in training; --augment remix does"
    elif source == "mixture" and all(has_stem(song) for song in songs):
        yield (
            "note: these songs have stems; --source stems --augment remix teaches the "
            "network the voice instead of the band"
        )


def of_known(job, songs, division):
    """How many held-out songs the network that is gone on from has learned."""
    from lca_keras.exports import versions

    about = pathlib.Path(job.config.train.continue_from, versions.METADATA)
    told = files.read_json(about)
    try:
        before = type(job).load(told.get("run", ""))
    except UserError:
        yield (
            "note: the run of the network that this goes on from is gone: whether it "
            "has learned the songs that are held out now is not known"
        )
        return
    how = before.source, before.config, before.folder
    seen, note = corpus.learned_from(*how, songs)
    if note:
        yield note
    part_of = division.part_of
    learned = [song for song in songs.songs if seen.get(song.key) == "train"]
    held_out = [s for s in learned if part_of.get(s.key, "train") != "train"]
    if held_out:
        yield (
            f"note: {len(held_out)} songs that are held out now, {held_out[0].label} "
            "say, the network has learned before: scores and thresholds will look "
            "better than they are. A --split-file can keep them in training"
        )


def of_parts(division):
    """Which songs a split file names in vain, and which came after a run had begun."""
    if division.unknown:
        yield (
            f"note: {len(division.unknown)} lines of {division.file} name no usable "
            f"song of the corpus, the first is {division.unknown[0]}"
        )
    yield from of_new(division)


def of_new(division):
    """Which songs came after a run had begun."""
    if division.new:
        yield (
            f"note: {len(division.new)} songs are new since the run began, and left "
            f"out; the first is {division.new[0]}"
        )


def of_training(state, train):
    """Where a training stands before it goes on."""
    if train.method != "none" and train.warmup_epochs >= train.epochs:
        yield (
            f"note: warm-up ({train.warmup_epochs} epochs) outlasts training "
            f"({train.epochs}): the counterfactual terms never act"
        )
    if state.epoch >= train.epochs:
        yield f"training was finished ({state.epoch} epochs)"
    elif state.epoch:
        yield f"resuming after epoch {state.epoch}"


def of_scores(state, train, evaluation, artists):
    """What a training's scores mean where they are not as they should be."""
    logs = state.best_logs
    if logs["f1"] - logs["val_f1"] > 0.3:
        yield (
            f"note: F1 is {logs['f1']:.2f} on training clips and {logs['val_f1']:.2f} "
            "on validation clips: much of it is learned by heart. More albums of each "
            "artist help, and voices over other bands (--preset voice)"
        )
    counterfactual = logs.get("val_cf_f1", -1.0)
    if state.best_epoch > train.warmup_epochs and counterfactual >= logs["val_f1"]:
        yield (
            f"note: the counterfactual names validation clips as well as the main "
            f"branch (F1 {counterfactual:.2f} and {logs['val_f1']:.2f}): the loss "
            "weights don't do their work here. Train longer, or search them "
            "(`python -m tuning.search`)"
        )
    truth, votes = evaluation.main.song_labels, evaluation.main.votes
    never = [artists[i] for i in np.unique(truth) if not (votes[truth == i] == i).any()]
    if never:
        yield f"note: no test song of {', '.join(never)} is named rightly"


def of_enrolled(job):
    """Who was enrolled in the version before, and is not in the next one."""
    from lca_keras.exports import versions

    folder = pathlib.Path(job.exports, job.folder.name)
    if not versions.versions(folder):
        return
    about = versions.find_version(folder) / versions.METADATA
    told = files.read_json(about) if about.exists() else {}
    if enrolled := (told.get("gallery") or {}).get("enrolled"):
        yield (
            f"note: {', '.join(enrolled)} were enrolled in the version before; the "
            "next one, of another network, does not know them: enroll them again"
        )
