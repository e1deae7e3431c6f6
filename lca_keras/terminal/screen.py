"""What commands show of a job: bars, tables, notes."""

import collections
import contextlib
import os
import shlex
import sys
import time

from lca_keras.base import console
from lca_keras.base.errors import UserError
from lca_keras.base.observer import Observer

# Files that are named one by one for the same reason.
_LISTED = 10
# How often, at one-second intervals, the first process may be out of reach.
_PATIENCE = 5


class Screen(Observer):
    """Shows progress on standard error, and what comes of a job on standard output."""

    progress = staticmethod(console.progress)
    working = staticmethod(console.working)

    def training(self, epochs, steps, warmup_epochs):
        """A bar over the steps and a line for every epoch."""
        from lca_keras.terminal.progress import EpochProgress

        return EpochProgress(epochs, steps, warmup_epochs)

    def note(self, text):
        """Prints the line."""
        print(text, flush=True)

    def told(self, what, values):
        """Prints what people want to know of it."""
        if what in _SHOWN:
            _SHOWN[what](values)


def _show_corpus(found):
    how, *notes = found["notes"]
    for note in notes:
        print(note)
    print(f"{found['songs']} songs ready, {len(found['skipped'])} skipped ({how})")
    _print_left_out(found)


def _show_strangers(found):
    print(f"{found['songs']} songs of {found['artists']} strangers")
    _print_left_out(found)


def _print_left_out(found):
    print_reasons("skipped", found["skipped"])
    print_reasons("note", found["doubtful"])


def _show_parts(parts):
    for part, found in parts.items():
        print(f"  {part:<10} {found['songs']:5d} songs {found['clips']:7d} clips")
        if found["lacking"]:
            print(f"  note: no {part} songs of {', '.join(found['lacking'])}")


def _show_training(found):
    print(
        f"best epoch {found['best_epoch']} of {found['epochs']}, by "
        f"{found['objective']} of validation: the one that is evaluated and exported"
    )


def _show_temperature(found):
    if not 0.021 < (temperature := found["temperature"]) < 49:
        print(
            f"note: the fitted temperature, {temperature:.3g}, is at its limit: on "
            "validation the network is at chance or never wrong, and its "
            "probabilities mean little"
        )


def _show_scores(found):
    for part, scores in found.items():
        frame, song = scores["frame"], scores["song"]
        print(
            f"{part:<10} F1  clips {frame['f1']:.3f}  songs {song['f1']:.3f}   "
            f"({song['count']} songs; macro F1 clips {frame['f1_macro']:.3f}, songs "
            f"{song['f1_macro']:.3f}; calibration error "
            f"{scores['calibration_error_before']:.3f} -> "
            f"{scores['calibration_error_after']:.3f})"
        )
        if "cf_frame" in scores:
            print(
                f"           counterfactual clips {scores['cf_frame']['f1']:.3f}  "
                f"songs {scores['cf_song']['f1']:.3f}   mean |A-A~| "
                f"{scores['attention_distance']:.3f}"
            )


def _show_voice_report(report):
    from lca_keras.evaluation.voice_report import HEARINGS, verdict

    # Each song is heard twice with another's voice or accompaniment.
    title = f"What it listens to ({report['swaps'] // 2} songs), F1"
    print(f"\n{title:<53} clips  songs")
    for name, heard in HEARINGS.items():
        scores = report["scores"][name]
        print(f"  {heard:<51} {scores['frame']:.3f}  {scores['song']:.3f}")
    print(verdict(report["shares"]))


def _show_gallery(found):
    from lca_keras.exports.card import named

    if "test" in found:
        print(
            f"unknown    {found['test']['unknown']:.1%} of the test songs, "
            f"{found['false_alarm']:.0%} were aimed at; no voice in "
            f"{found['test']['no_voice']:.1%}"
        )
    why, strange = found["unmeasured"], found.get("strangers")
    if why or strange is None:
        why = why or "no artists were left out, and no songs given (fit --unknown PATH)"
        print(f"           not measured on strangers: {why}")
    else:
        print(
            f"           {strange['unknown']:.1%} of {strange['songs']} songs by "
            f"{named(strange)}; AUROC {strange['auroc_songs']:.3f}"
        )
    detector = found["detector"]
    print(
        f"voice      told from {detector['heard']}: right on {detector['voice']:.1%} "
        f"of validation clips that have one, {detector['no_voice']:.1%} of others"
    )


_SHOWN = {
    "corpus": _show_corpus,
    "strangers": _show_strangers,
    "parts": _show_parts,
    "train": _show_training,
    "calibrate": _show_temperature,
    "evaluate": _show_scores,
    "voice_report": _show_voice_report,
    "gallery": _show_gallery,
}


def prepare_corpus(source, config):
    """`lca_keras.data.corpus.prepare`, before people's eyes."""
    from lca_keras.workflow import course

    return course.prepare_corpus(source, config, Screen())


def print_parts(division, sources):
    """Prints the songs and clips of each part."""
    from lca_keras.workflow import advice, course

    Screen().notes(advice.of_parts(division))
    _show_parts(course.count_parts(division, sources))


def print_reasons(what, reasons, file=None):
    """Prints a line for each path of a dict; of many with the same reason, a few."""
    count = collections.Counter(reasons.values())
    seen = collections.Counter()
    for path, reason in reasons.items():
        seen[reason] += 1
        if count[reason] <= _LISTED or seen[reason] < _LISTED:
            print(f"  {what} {path}: {reason}", file=file)
        elif seen[reason] == count[reason]:
            more = count[reason] - _LISTED + 1
            print(f"  {what} {more} more: {reason}", file=file)


def wait_for_first(folder):
    """Waits until the first process of a training has begun the run folder."""
    from lca_keras.models import distribution

    print(f"waiting for the first process to begin {folder}", flush=True)
    missed = 0
    while not (folder / "split.csv").exists():
        time.sleep(1)
        missed = 0 if distribution.reaches_first() else missed + 1
        if missed == _PATIENCE:
            raise UserError(
                f"the first process is gone and has not begun {folder}: see what it "
                "says, and start all anew"
            )


def train_along(job, songs, strategy, again):
    """`lca_keras.workflow.course.train_along`, `restarting` with the words `again`."""
    from lca_keras.workflow import course

    with restarting(again):
        state = course.train_along(job, songs, strategy)
    print(f"trained along to epoch {state.epoch}; the first process does the rest")


@contextlib.contextmanager
def restarting(again):
    """Where another process of the training ends, this one begins anew and waits.

    TensorFlow cannot take a process into a cluster that has lost one. `again` are words
    of the command that goes on with the training, `python` first.
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
