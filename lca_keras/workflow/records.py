"""What a run leaves for people and papers: environment, metrics, logged pictures."""

import contextlib
import dataclasses
import datetime
import os
import pathlib
import platform
import subprocess
import sys

from lca_keras.base import files


def environment(config):
    """Returns what a paper or a colleague needs to repeat a run: versions, commit."""
    from importlib import metadata

    packages = ("lca-keras", "tensorflow", "keras", "numpy", "librosa", "soundfile")
    versions = {}
    for package in packages:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    commit, here = None, pathlib.Path(__file__)
    how = {"cwd": here.parent, "stderr": subprocess.DEVNULL, "text": True}
    # Where it is installed, a repository of somebody's may lie around it.
    own = ["git", "ls-files", "--error-unmatch", here.name]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        subprocess.check_output(own, **how)
        commit = subprocess.check_output(["git", "rev-parse", "HEAD"], **how).strip()
    now = datetime.datetime.now(datetime.timezone.utc)
    return {
        "created": now.isoformat(timespec="seconds"),
        "command": sys.argv,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": versions,
        "seed": config.train.seed,
        "commit": commit,
    }


def results(folder):
    """Returns `metrics.json` of a folder; an empty dict if there is none."""
    path = pathlib.Path(folder, "metrics.json")
    return files.read_json(path) if path.exists() else {}


def add_results(folder, found):
    """Adds entries to `metrics.json` of a folder."""
    files.write_json(pathlib.Path(folder, "metrics.json"), {**results(folder), **found})


def drop_result(folder, name):
    """Takes an entry out of `metrics.json` of a folder, if it is there."""
    found = results(folder)
    if found.pop(name, None) is not None:
        files.write_json(pathlib.Path(folder, "metrics.json"), found)


def add_gallery(folder, found):
    """Adds entries to `gallery` in `metrics.json` of a folder."""
    add_results(folder, {"gallery": {**results(folder).get("gallery", {}), **found}})


def write_spectrograms(folder, source, count=4):
    """Writes the spectrograms of a few clips to a TensorBoard log folder."""
    import tensorflow as tf

    clips = dataclasses.replace(source, streams=(source.front_end.main.name,))
    mel, _ = next(iter(clips.ordered(count)))
    low, high = tf.reduce_min(mel), tf.reduce_max(mel)
    images = (mel - low) / (high - low + 1e-6)
    with tf.summary.create_file_writer(os.fspath(folder)).as_default():
        # Low frequencies at the bottom.
        tf.summary.image("mel_spectrogram", images[:, ::-1], step=0, max_outputs=count)


def few_clips(source, count=4):
    """The first clips of songs by so many artists, as a network takes them; labels."""
    import keras

    chosen = {}
    for key, label in source.labels.items():
        chosen.setdefault(label, key)
    labels = {key: label for label, key in list(chosen.items())[:count]}
    few = dataclasses.replace(source, labels=labels)
    clips, labels = next(iter(few.ordered(few.num_clips)))
    first = [few.clips_by_song[key][0] for key in few.order]
    clips = keras.tree.map_structure(lambda tensor: tensor.numpy()[first], clips)
    return clips, labels.numpy()[first]
