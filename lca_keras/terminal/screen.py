"""What several commands show, and do while they show it."""

import collections
import contextlib
import dataclasses
import functools
import os
import shlex
import sys

import numpy as np

from lca_keras.base import console, files
from lca_keras.base.errors import UserError

# Files that are named one by one for the same reason.
_LISTED = 10
# Difference of F1 between training and validation that is worth a word.
_BY_HEART = 0.3


def prepare_corpus(source, config):
    """`lca_keras.data.corpus.prepare` with a progress bar; says what came of it.

    Raises:
        UserError: As that function.
    """
    from lca_keras.data import corpus

    with contextlib.ExitStack() as stack:
        show = None
        if source.data:
            show = stack.enter_context(console.progress("Features"))
        found = corpus.prepare(source, config, show)
    how, *notes = found.notes
    for note in notes:
        print(note)
    print(f"{len(found.songs)} songs ready, {len(found.skipped)} skipped ({how})")
    print_reasons("skipped", found.skipped)
    print_reasons("note", found.doubtful)
    return found


def print_reasons(what, reasons, file=None):
    """Prints a line for each path of a dict; of many with the same reason, a few."""
    show = functools.partial(print, file=file)
    count = collections.Counter(reasons.values())
    seen = collections.Counter()
    for path, reason in reasons.items():
        seen[reason] += 1
        if count[reason] <= _LISTED or seen[reason] < _LISTED:
            show(f"  {what} {path}: {reason}")
        elif seen[reason] == count[reason]:
            show(f"  {what} {count[reason] - _LISTED + 1} more: {reason}")


def print_parts(division, sources):
    """Prints the songs and clips of each part."""
    if division.unknown:
        print(
            f"note: {len(division.unknown)} lines of {division.file} name no usable "
            f"song of the corpus, the first is {division.unknown[0]}"
        )
    print_new(division.new)
    for part, source in sources.items():
        print(f"  {part:<10} {len(source.labels):5d} songs {source.num_clips:7d} clips")
        there = set(source.labels.values())
        lacking = [a for n, a in enumerate(division.artists) if n not in there]
        if lacking:  # A fold may have none.
            print(f"  note: no {part} songs of {', '.join(lacking)}")


def print_new(songs):
    """Says which songs came to a corpus after a run had begun."""
    if songs:
        print(
            f"note: {len(songs)} songs are new since the run began, and left out; the "
            f"first is {songs[0]}"
        )


def print_learned_from(seen, songs):
    """Says how many of some songs a model knows; `corpus.learned_from` found them."""
    parts = collections.Counter(seen[s.key] for s in songs if s.key in seen)
    if parts:
        counts = " and ".join(f"{n} by {part}" for part, n in sorted(parts.items()))
        print(
            f"note: the model knows {sum(parts.values())} of these {len(songs)} songs "
            f"({counts} of its run): scores on them say little. Without --data its "
            "test songs are evaluated, with --moved-to where they are now"
        )


def print_advice(state, train, evaluation, artists):
    """Says what a training's scores mean where they are not as they should be.

    Args:
        state: `lca_keras.workflow.training.TrainingState`.
        train: `lca_keras.base.config.TrainConfig`.
        evaluation: `lca_keras.evaluation.scoring.Evaluation` of the test songs.
        artists: List of class names.
    """
    logs = state.best_logs
    if logs["f1"] - logs["val_f1"] > _BY_HEART:
        print(
            f"note: F1 is {logs['f1']:.2f} on training clips and {logs['val_f1']:.2f} "
            "on validation clips: much of it is learned by heart. More albums of each "
            "artist help, and voices over other bands (--preset voice)"
        )
    counterfactual = logs.get("val_cf_f1", -1.0)
    if state.best_epoch > train.warmup_epochs and counterfactual >= logs["val_f1"]:
        print(
            f"note: the counterfactual names validation clips as well as the main "
            f"branch (F1 {counterfactual:.2f} and {logs['val_f1']:.2f}): the loss "
            "weights don't do their work here. Train longer, or search them "
            "(`python -m tuning.search`)"
        )
    truth, votes = evaluation.main.song_labels, evaluation.main.votes
    never = [artists[i] for i in np.unique(truth) if not (votes[truth == i] == i).any()]
    if never:
        print(f"note: no test song of {', '.join(never)} is named rightly")


def train(job, sources, artists, strategy=None):
    """Trains with a bar over the steps and a line for every epoch.

    Args:
        job: `lca_keras.workflow.run.Run`.
        sources: Dict from part to `lca_keras.data.clips.ClipSource`.
        artists: List of class names.
        strategy: Optional `tf.distribute.Strategy`.
    """
    from lca_keras.terminal.progress import EpochProgress
    from lca_keras.workflow.training import TrainingState

    settings = job.config.train
    if settings.method != "none" and settings.warmup_epochs >= settings.epochs:
        print(
            f"note: warm-up ({settings.warmup_epochs} epochs) outlasts training "
            f"({settings.epochs}): the counterfactual terms never act"
        )
    done = TrainingState.load(job.checkpoints).epoch
    if done >= settings.epochs:
        print(f"training was finished ({done} epochs)")
        return
    if done:
        print(f"resuming after epoch {done}")
    steps = sources["train"].steps(settings.batch_size)
    with EpochProgress(settings.epochs, steps, settings.warmup_epochs) as progress:
        job.train(sources, len(artists), [progress], strategy)


def train_along(job, songs, strategy, again):
    """Trains as another process than the first, which does all the rest.

    Args:
        job: `lca_keras.workflow.run.Run` that the first process has begun.
        songs: `lca_keras.data.corpus.Corpus`.
        strategy: `tf.distribute.Strategy`.
        again: Words of the command that `restarting` starts.
    """
    from lca_keras.data import corpus
    from lca_keras.workflow import training

    division = corpus.divide(job.config, songs, job.folder)
    sources = corpus.clip_sources(
        songs, division.part_of, division.artists, job.config, ("train", "validation")
    )
    classes = len(division.artists)
    with restarting(again):
        folder, build = job.checkpoints, job.build()
        state = training.train(
            job.config, sources, classes, folder, (), build, strategy
        )
    print(f"trained along to epoch {state.epoch}; the first process does the rest")


@contextlib.contextmanager
def restarting(again):
    """Where another process of the training ends, this one begins anew and waits.

    TensorFlow cannot take a process into a cluster that has lost one.

    Args:
        again: Words of the command that goes on with the training, `python` first.
    """
    from lca_keras.models.distribution import WorkerGoneError

    try:
        yield
    except WorkerGoneError as error:
        print(
            f"\n{error}. Start it again: {shlex.join(again)}. This process waits for "
            "it, and all go on from the last epoch",
            file=sys.stderr,
            flush=True,
        )
        os.execv(sys.executable, [sys.executable, *again[1:]])


def print_scores(evaluations):
    """Prints `lca_keras.evaluation.scoring.Evaluation`s by part."""
    for part, evaluation in evaluations.items():
        scores = evaluation.scores
        print(
            f"{part:<10} F1  clips {scores['frame']['f1']:.3f}  songs "
            f"{scores['song']['f1']:.3f}   ({scores['song']['count']} songs; macro F1 "
            f"clips {scores['frame']['f1_macro']:.3f}, songs "
            f"{scores['song']['f1_macro']:.3f}; "
            f"calibration error {scores['calibration_error_before']:.3f} -> "
            f"{scores['calibration_error_after']:.3f})"
        )
        if "cf_frame" in scores:
            print(
                f"           counterfactual clips {scores['cf_frame']['f1']:.3f}  "
                f"songs {scores['cf_song']['f1']:.3f}   mean |A-A~| "
                f"{scores['attention_distance']:.3f}"
            )


def prepare_strangers(source, config, artists):
    """`corpus.strangers` with a progress bar; `None` if none are given."""
    from lca_keras.data import corpus

    if source.unknown is None:
        return None
    with console.progress("Features of strangers") as show:
        found, clips = corpus.strangers(source, config, artists, show)
    singers = len({song.artist for song in found.songs})
    print(f"{len(found.songs)} songs of {singers} strangers")
    print_reasons("skipped", found.skipped)
    print_reasons("note", found.doubtful)
    return clips


def set_up_gallery(job, model, sources, artists, strange=None):
    """Sets up the gallery of a run, with a bar over a side training; prints its worth.

    Args:
        job: `lca_keras.workflow.run.Run`.
        model: `lca_keras.models.LCAModel`, calibrated.
        sources: Dict from part to `lca_keras.data.clips.ClipSource`.
        artists: List of class names.
        strange: What `prepare_strangers` returned.
    """
    import keras

    try:
        with console.working("Comparing voiceprints"):
            gallery, known = job.set_up_gallery(model, sources, artists)
    except UserError as error:  # The model is there all the same.
        print(f"nobody is unknown to it, every song gets a name: {error}")
        return
    epochs, why = job.config.side_epochs, ""
    with console.progress("Side training without some artists") as show:
        log = keras.callbacks.LambdaCallback(
            on_train_begin=lambda logs: show(0, epochs),
            on_epoch_end=lambda epoch, logs: show(epoch + 1, epochs),
        )
        try:
            job.measure_strangers(
                model, gallery, known, sources, artists, strange, [log]
            )
        except UserError as error:
            why = f"the side training has failed. {error}"
    print_open_set(files.read_json(job.folder / "metrics.json")["open_set"], why)


def print_open_set(told, why=""):
    """Prints what a run's gallery is worth, of `open_set` in `metrics.json`.

    `why` says what kept it from being measured on strangers.
    """
    if "test" in told:
        print(
            f"unknown    {told['test']['unknown']:.1%} of the test songs, "
            f"{told['false_alarm']:.0%} were aimed at; no voice in "
            f"{told['test']['no_voice']:.1%}"
        )
    strange = told.get("strangers")
    if why or strange is None:
        why = why or "no artists were left out, and no songs given (fit --unknown PATH)"
        print(f"           not measured on strangers: {why}")
    else:
        who = "strangers"
        if not strange.get("given"):
            epochs, names = strange["epochs"], ", ".join(strange["artists"])
            who = f"{names}, whom {epochs} epochs of a side training left out"
        print(
            f"           {strange['unknown']:.1%} of {strange['songs']} songs by "
            f"{who}; AUROC {strange['auroc_songs']:.3f}"
        )
    detector = told["detector"]
    print(
        f"voice      told from {detector['heard']}: right on {detector['voice']:.1%} "
        f"of validation clips that have one, {detector['no_voice']:.1%} of others"
    )


def check_voice_report(config):
    """Raises unless the model of a `Config` can have a voice report.

    Raises:
        UserError: It hears vocals alone, or takes the melody of a mixture.
    """
    features = config.features
    if features.source == "stems":
        return
    if features.source == "vocals" or config.model.name == "crnnm":
        raise UserError(
            "a voice report is for models that hear the mixture; this one hears vocals "
            "alone, or the melody of a mixture. One that `fit --source stems` trains "
            "has a report"
        )


def voice_report(folder, model, clips, artists, source, config, songs):
    """Lets a run's model hear songs in parts and remixed; prints what came of it.

    Args:
        folder: Folder for the results.
        model: `lca_keras.models.LCAModel`.
        clips: `lca_keras.data.clips.ClipSource` of the songs.
        artists: List of class names.
        source: `lca_keras.data.corpus.DataSource`, which says where a separator is.
        config: `lca_keras.base.config.Config` of the run.
        songs: List of the songs.

    Raises:
        UserError: The model hears vocals alone, or stems cannot be had.
    """
    from lca_keras.data import corpus
    from lca_keras.workflow import run

    check_voice_report(config)
    if config.features.source != "stems":
        with console.progress("Stems") as show:
            store, reasons = corpus.stems_of(source, config, songs, show)
        labels = {k: v for k, v in clips.labels.items() if k in store.records}
        clips = dataclasses.replace(clips, store=store, labels=labels)
        for path, reason in reasons.items():
            print(f"  not in the voice report: {path}: {reason}")
    with console.working("Listening for voices and bands"):
        report = run.listen(folder, model, clips, artists)
    print_voice_report(report, len(clips.labels))


def print_voice_report(report, count):
    """Prints a `lca_keras.evaluation.voice_report.VoiceReport` of so many songs."""
    from lca_keras.evaluation.voice_report import HEARINGS, verdict

    title = f"What it listens to ({count} songs), F1"
    print(f"\n{title:<53} clips  songs")
    for name, heard in HEARINGS.items():
        scores = report.scores[name]
        print(f"  {heard:<51} {scores['frame']:.3f}  {scores['song']:.3f}")
    print(verdict(report.shares))
