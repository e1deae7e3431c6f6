"""TFLite models of one clip, for phones."""

import multiprocessing
import os
import pathlib
import signal
import tempfile

import keras
import numpy as np
import tensorflow as tf

from lca_keras.base import console, registry
from lca_keras.base.config import Config
from lca_keras.base.errors import UserError
from lca_keras.exports.signatures import describe_clips
from lca_keras.features.front_end import network_input


def convert(
    network, config, form="float32", waveform=False, calibration=None, detector=None
):
    """Converts a network to a TFLite model of one clip, built-in operators only.

    Args:
        network: `lca_keras.models.backbone.ServedBackbone` for inference.
        config: That of its training.
        form: One of `lca_keras.exports.tflite_file.FORMS`. `int8-dynamic` keeps weights
            in eight bits, `int8` what is computed too.
        waveform: Whether the model takes a clip's samples, and computes what is heard
            of them itself; level and loudest cell are those of the clip, since it knows
            no other.
        calibration: For `int8`, a float32 array `(clips, …)` for each stream: clips
            that tell how large values become.
        detector: Optional, of the network's gallery.

    Returns:
        Bytes. Inputs are float32 whatever the form: a clip of each stream that the
        network takes, `mel_spectrogram` `(1, mel_bins, clip_frames, 1)` say, or
        `waveform` `(1, samples)`; outputs `probabilities` `(1, classes)`, `embedding`
        `(1, units)`, `voiceprint` `(1, voiceprint_size)` and, with a detector, `voice`
        `(1, 1)`.

    Raises:
        ValueError: The form takes no such input.
    """
    front_end = config.front_end
    if waveform and (form == "int8" or not hears_waveforms(config)):
        what = "an int8 model" if form == "int8" else "its front end"
        raise ValueError(f"{what} needs what the front end makes, not waveforms")
    # Of rolled GRUs, full quantisation brings the process down (TensorFlow 2.21).
    told_by = network.unrolled() if form == "int8" else network
    shapes = config.clip_shapes
    if waveform:
        length, layer = front_end.clip_samples(config.clip_frames), front_end.layer()
        shapes = {"waveform": (length,)}

    def identify(*inputs):
        heard = dict(zip(shapes, inputs, strict=True))
        if waveform:
            heard = layer(inputs[0], tf.constant([length]))
        clip = network_input(config.streams, heard)
        told = describe_clips(told_by, clip, detector)
        if detector is None:
            del told["voice"]
        logits = network.classifier(told["embedding"])
        return {**told, "probabilities": network.probabilities(logits)}

    specs = [tf.TensorSpec((1, *s), tf.float32, name) for name, s in shapes.items()]
    with tempfile.TemporaryDirectory() as folder:
        archive = keras.export.ExportArchive()
        archive.track(network)
        archive.track(told_by)
        archive.add_endpoint("serving_default", identify, specs)
        archive.write_out(folder, verbose=False)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
        if form != "float32":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if form == "float16":
            converter.target_spec.supported_types = [tf.float16]
        if form == "int8":
            integers = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
            converter.target_spec.supported_ops = integers

            def representative():
                for clip in zip(*calibration, strict=True):
                    values = [each[None] for each in clip]
                    yield dict(zip(shapes, values, strict=True))

            converter.representative_dataset = representative
        return converter.convert()


def hears_waveforms(config):
    """Whether a graph can compute all that the network of a `Config` hears."""
    front_end = config.front_end
    streams = map(front_end.stream, config.streams)
    return front_end.layer() is not None and all(each.in_graph for each in streams)


def convert_apart(*arguments, calibration=None, detector=None):
    """`convert` in a process of its own: if it brings that down, a `UserError`."""
    network, config, form, waveform = arguments
    with tempfile.TemporaryDirectory() as folder:
        place = pathlib.Path(folder)
        network.save(place / "network.keras")
        np.savez(place / "calibration.npz", *(calibration or []))
        spawn = multiprocessing.get_context("spawn")
        # What was registered here is known there too, and with it its classes.
        known = registry.FRONT_ENDS, registry.NETWORKS
        process = spawn.Process(
            target=_convert_file,
            args=(folder, known, config.to_dict(), form, waveform, detector),
        )
        with console.stderr_to(place / "log"):
            process.start()
            process.join()
        if process.exitcode:
            code = process.exitcode
            said = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            log = (place / "log").read_text(errors="replace").strip().splitlines()
            raise UserError(
                f"the conversion to {form} has failed ({said}): {' '.join(log[-1:])}"
            )
        return (place / "model.tflite").read_bytes()


def _convert_file(folder, known, config, form, waveform, detector):
    import lca_keras.models  # noqa: F401  Registers the saved network's classes.

    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    front_ends, networks = known
    registry.FRONT_ENDS.update(front_ends)
    registry.NETWORKS.update(networks)
    place, config = pathlib.Path(folder), Config.from_dict(config)
    network = keras.saving.load_model(place / "network.keras")
    with np.load(place / "calibration.npz") as arrays:
        calibration = [arrays[name] for name in arrays.files]
    content = convert(network, config, form, waveform, calibration, detector)
    (place / "model.tflite").write_bytes(content)
