"""TFLite models of one clip, for phones."""

import multiprocessing
import os
import pathlib
import signal
import tempfile

import keras
import numpy as np
import tensorflow as tf

from lca_keras.base import console
from lca_keras.base.errors import UserError
from lca_keras.exports.signatures import encoder_input, voice_of
from lca_keras.features.spectrogram_layer import MelFrontEnd
from lca_keras.models.network import describe


def convert(network, form="float32", waveform=None, calibration=None, detector=None):
    """Converts a network to a TFLite model of one clip, built-in operators only.

    Args:
        network: `SingerNetwork` for inference.
        form: One of `lca_keras.exports.tflite_file.FORMS`. `int8-dynamic` keeps weights
            in eight bits, `int8` what is computed too.
        waveform: Optional `lca_keras.base.config.FeatureConfig`: then the model takes a
            clip's samples, and computes these features itself; level and loudest cell
            are those of the clip, since it knows no other.
        calibration: For `int8`, list of a float32 array `(clips, mel_bins, clip_frames,
            1)` for each input: clips that tell how large values become.
        detector: Optional `lca_keras.voices.detector.VoiceDetector`.

    Returns:
        Bytes. Inputs are float32 whatever the form: `mel_spectrogram`
        `(1, mel_bins, clip_frames, 1)` (and `melody` of the same shape, where the
        network takes it), or `waveform` `(1, samples)`; outputs `probabilities`
        `(1, classes)`, `embedding` `(1, units)`, `voiceprint` `(1, voiceprint_size)`
        and, with a detector, `voice` `(1, 1)`.

    Raises:
        ValueError: The form takes no such input.
    """
    if waveform is not None and (form == "int8" or network.takes_melody):
        what = "a melody" if network.takes_melody else "an int8 model"
        raise ValueError(f"{what} needs spectrograms, not waveforms")
    # Of rolled GRUs, full quantisation brings the process down (TensorFlow 2.21).
    embedder = _unrolled(network.embedder) if form == "int8" else network.embedder

    def identify(*inputs):
        both = tf.concat(inputs, axis=-1)
        if waveform is not None:
            both = MelFrontEnd(waveform)(both)
        maps = network.encoder(encoder_input(network, both), training=False)["maps"]
        told = describe(embedder, maps)
        logits = network.classifier(told["embedding"])
        told["probabilities"] = network.probabilities(logits)
        if detector is not None:
            told["voice"] = voice_of(told["voiceprint"], detector)
        return told

    shape = (1, *keras.tree.flatten(network.input)[0].shape[1:])
    names = ["mel_spectrogram", "melody"][: 2 if network.takes_melody else 1]
    if waveform is not None:
        shape, names = (1, clip_samples(network.clip_frames, waveform)), ["waveform"]
    specs = [tf.TensorSpec(shape, tf.float32, name) for name in names]
    with tempfile.TemporaryDirectory() as folder:
        archive = keras.export.ExportArchive()
        archive.track(network)
        archive.track(embedder)
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
                    yield dict(zip(names, values, strict=True))

            converter.representative_dataset = representative
        return converter.convert()


def clip_samples(clip_frames, features):
    """Samples whose spectrogram has as many frames as a clip."""
    return (clip_frames - 1) * features.hop_length


def _unrolled(embedder):
    """A copy of an embedder that has no loops."""

    def clone(layer):
        config = layer.get_config()
        if isinstance(layer, keras.layers.GRU):
            config["unroll"] = True
        return layer.__class__.from_config(config)

    copy = keras.models.clone_model(embedder, clone_function=clone)
    copy.set_weights(embedder.get_weights())
    return copy


def convert_apart(network, form, waveform=None, calibration=None, detector=None):
    """`convert` in a process of its own, since a conversion may bring it down.

    Raises:
        UserError: It did.
    """
    with tempfile.TemporaryDirectory() as folder:
        place = pathlib.Path(folder)
        network.save(place / "network.keras")
        np.savez(place / "calibration.npz", *(calibration or []))
        spawn = multiprocessing.get_context("spawn")
        process = spawn.Process(
            target=_convert_file, args=(folder, form, waveform, detector)
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


def _convert_file(folder, form, waveform, detector):
    import lca_keras.models  # noqa: F401  Registers the saved network's classes.

    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    place = pathlib.Path(folder)
    network = keras.saving.load_model(place / "network.keras")
    with np.load(place / "calibration.npz") as arrays:
        calibration = [arrays[name] for name in arrays.files]
    content = convert(network, form, waveform, calibration, detector)
    (place / "model.tflite").write_bytes(content)
