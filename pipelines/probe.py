"""A model in a process of its own, as a server has it: what it needs and answers.

A program, not a module: it must run where this package is not, and refuses to import
it. `python -I probe.py EXPORT REQUESTS ANSWERS.npz` writes what it measured, and the
probabilities of the songs in the folder of requests.
"""

import importlib.abc
import json
import os
import pathlib
import resource
import sys
import time

import numpy as np
import tensorflow as tf


class _NotHere(importlib.abc.MetaPathFinder):
    """Makes imports of this package fail, as they would on a server."""

    def find_spec(self, name, path=None, target=None):
        """Raises for what is ours; leaves the rest to others."""
        if name.partition(".")[0] in ("lca_keras", "pipelines", "tuning"):
            raise ModuleNotFoundError(f"the model needs {name}, which no server has")
        return None


def main(export, requests, answers):
    """Loads the export, asks it all that it has to answer, and writes the answers."""
    sys.meta_path.insert(0, _NotHere())
    with open(os.path.join(requests, "settings.json"), encoding="utf-8") as file:
        settings = json.load(file)
    start = time.monotonic()
    model = tf.saved_model.load(export)
    missing = sorted(set(settings["signatures"]) - set(model.signatures))
    if missing:
        raise ValueError(f"no signature {', '.join(missing)}")
    _warm_up(model, os.path.join(export, "assets.extra", "tf_serving_warmup_requests"))
    found = {"first_answer_seconds": time.monotonic() - start}
    found["batches"] = _batches(model, settings)
    found["hour_seconds"] = _lengths(model, settings)
    probabilities, found["batches"]["examples"] = _songs(model, requests)
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found["memory_mb"] = most / (2**10 if sys.platform != "darwin" else 2**20)
    np.savez(answers, found=json.dumps(found), probabilities=probabilities)


def _warm_up(model, path):
    """Answers the warm-up requests as TF Serving does."""
    from tensorflow_serving.apis import prediction_log_pb2

    if not os.path.exists(path):
        raise ValueError("no warm-up requests")
    for record in tf.data.TFRecordDataset(path):
        log = prediction_log_pb2.PredictionLog.FromString(record.numpy())
        request = log.predict_log.request
        signature = model.signatures[request.model_spec.signature_name]
        signature(**{n: tf.make_ndarray(v) for n, v in request.inputs.items()})


def _inputs(signature, count, settings, seconds):
    """Noise for a signature: `count` songs of some seconds."""
    random = np.random.default_rng(0)
    samples = int(seconds * settings["sample_rate"])
    if signature == "clips":
        samples = settings["clip_samples"]
    arrays = {
        "waveform": random.normal(0.0, 0.1, (count, samples)).astype("float32"),
        "lengths": np.full(count, samples, "int32"),
    }
    for stream in settings["streams"]:
        frames = samples // stream["hop"] + stream["centred"]
        shape = [frames if size is None else size for size in stream["shape"]]
        # What comes beside the first stream, a melody say, noise has none of.
        wide = 40.0 if stream["in_graph"] else 0.0
        values = random.uniform(-wide, wide, (count, *shape))
        arrays[stream["name"]] = values.astype("float32")
    return {name: arrays[name] for name in settings["signatures"][signature]}


def _batches(model, settings):
    """Greatest difference between a song's answers alone and in batches."""
    found, seconds = {}, settings["clip_seconds"]
    for name in sorted(settings["signatures"]):
        inputs = _inputs(name, 64, settings, seconds)
        if name == "audio_bytes":
            songs = _inputs("serving_default", 64, settings, seconds)["waveform"]
            rate = settings["sample_rate"]
            wav = [tf.audio.encode_wav(song[:, None], rate).numpy() for song in songs]
            inputs = {name: np.array(wav, object)}
        elif not inputs:  # It takes records: see `_songs`.
            continue
        expected, found[name] = None, 0.0
        for count in (1, 7, 64):
            few = {key: tf.constant(value[:count]) for key, value in inputs.items()}
            answer = model.signatures[name](**few)
            # Noise is nobody's voice, and nothing is wrong with that answer.
            judged = {b"ok", b"unknown", b"no voice"}
            refused = set(answer["status"].numpy()) - judged
            if refused:
                raise ValueError(f"{name}, batch of {count}: {refused}")
            numbers = {k: v.numpy() for k, v in answer.items() if v.dtype.is_floating}
            expected = expected or numbers
            for key, value in numbers.items():
                if not np.isfinite(value).all():
                    raise ValueError(f"{name}, batch of {count}: {key} is not finite")
                alone = expected[key][0]
                # Voiceprints are no probabilities: some are above 30.
                apart = np.abs(value[0] - alone) / np.maximum(1, np.abs(alone))
                found[name] = max(found[name], float(apart.max()))
    return found


def _lengths(model, settings):
    """Answers songs of odd lengths; returns the seconds that an hour takes."""
    if "serving_default" not in settings["signatures"]:
        return 0.0
    clip = settings["clip_seconds"]
    lengths = {"one clip": clip, "short of two clips": 2 * clip - 1, "an hour": 3600.0}
    for name, seconds in lengths.items():
        inputs = _inputs("serving_default", 1, settings, seconds)
        inputs = {key: tf.constant(value) for key, value in inputs.items()}
        start = time.monotonic()
        answer = model.signatures["serving_default"](**inputs)
        took = time.monotonic() - start
        clips = answer["frame_probabilities"].shape[1]
        samples = int(seconds * settings["sample_rate"])
        frames = samples // settings["hop"] + settings["streams"][0]["centred"]
        if clips != frames // settings["clip_frames"]:
            raise ValueError(f"{name}: {clips} clips of {seconds:.2f} s")
    return took


def _songs(model, folder):
    """Probabilities of the songs one by one, and their difference from batches'."""
    songs = [path.read_bytes() for path in sorted(pathlib.Path(folder).glob("*.song"))]
    signature, worst = model.signatures["examples"], 0.0
    alone = np.array([signature(tf.constant([s]))["probabilities"][0] for s in songs])
    for count in (7, 64):
        order = np.arange(count) % len(songs)
        together = signature(tf.constant([songs[index] for index in order]))
        apart = np.abs(together["probabilities"].numpy() - alone[order])
        worst = max(worst, float(apart.max()))
    return alone, worst


if __name__ == "__main__":
    main(*sys.argv[1:])
