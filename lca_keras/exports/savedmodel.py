"""The SavedModel for TF Serving: written, with its warm-up, and read back."""

import os

import keras
import numpy as np
import tensorflow as tf

from lca_keras.base import files
from lca_keras.base.config import Config
from lca_keras.base.errors import UserError
from lca_keras.exports.signatures import ServedNetwork
from lca_keras.exports.versions import METADATA
from lca_keras.models.factory import build_network

# Songs of a request, and their clips, that a server has seen before it serves.
_WARM_BATCHES, _WARM_CLIPS = (1, 2, 8), (1, 3)


def write(network, artists, config, folder, about, gallery=None):
    """Writes the SavedModel of a `ServedNetwork`, with warm-up requests."""
    archive = keras.export.ExportArchive()
    archive.track(network)
    served = ServedNetwork(network, artists, config, about, gallery)
    signatures = served.signatures()
    for name, (method, specs) in signatures.items():
        archive.add_endpoint(name, method, specs)
    archive.write_out(os.fspath(folder), verbose=False)
    _write_warm_up(folder, config, signatures, served.given)


def read_network(folder):
    """The `ServedBackbone` of a version, its main branch for inference, with weights.

    What is no whole export, or not of this release's networks, is a `UserError`.
    """
    try:
        about = files.read_json(folder / METADATA)
        config = Config.from_dict(about["config"])
        stored = tf.saved_model.load(os.fspath(folder)).variables
    except (OSError, ValueError, KeyError, UserError) as error:
        raise UserError(f"{folder}: not a whole export ({error})") from error
    network = build_network(config, len(about["artists"]), "float32")
    network = network.for_inference(about["temperature"])
    values = {variable.name.partition(":")[0]: variable for variable in stored}
    for weight in network.weights:
        value = values.get(weight.path)
        if value is None or value.shape != weight.shape:
            raise UserError(
                f"{folder}: its network is not that of its configuration "
                f"({weight.path}: {None if value is None else value.shape}, expected "
                f"{weight.shape}). Give the run that it comes from"
            )
        weight.assign(value.numpy())
    return network


def _write_warm_up(folder, config, signatures, given):
    """Requests that TF Serving runs before it serves: the first of a size is slow."""
    from tensorflow_serving.apis import model_pb2, predict_pb2, prediction_log_pb2

    path = folder / "assets.extra" / "tf_serving_warmup_requests"
    path.parent.mkdir()
    with tf.io.TFRecordWriter(os.fspath(path)) as writer:
        for signature, tensors in _warm_up_inputs(config, given):
            if signature not in signatures:
                continue
            request = predict_pb2.PredictRequest(
                model_spec=model_pb2.ModelSpec(signature_name=signature),
                inputs={name: _proto(value) for name, value in tensors.items()},
            )
            log = prediction_log_pb2.PredictionLog(
                predict_log=prediction_log_pb2.PredictLog(request=request)
            )
            writer.write(log.SerializeToString())


def _warm_up_inputs(config, given):
    front_end, frames = config.front_end, config.clip_frames
    streams = [front_end.stream(name) for name in config.streams]

    def zeros(streams, batch, samples):
        return {
            s.name: np.zeros((batch, *s.sized(s.frames(samples))), "float32")
            for s in streams
        }

    for batch in _WARM_BATCHES:
        for clips in _WARM_CLIPS:
            samples = frames * clips * front_end.main.hop
            waveform = np.full((batch, samples), 0.1, "float32")
            lengths = np.full(batch, samples, "int32")
            heard = zeros(given, batch, samples)
            yield "serving_default", {"waveform": waveform, **heard}
            yield "songs", {"waveform": waveform, "lengths": lengths, **heard}
            yield "embed", {"waveform": waveform, **heard}
            whole = zeros(streams, batch, front_end.clip_samples(frames * clips))
            yield front_end.signature, whole
            if clips == 1:
                yield "clips", whole
                wav = tf.audio.encode_wav(waveform[:1].T, front_end.sample_rate)
                yield "audio_bytes", {"audio_bytes": [wav.numpy()] * batch}
    yield "about", {"request": [b""]}


def _proto(value):
    """A `TensorProto`; an array of one number over and over is that number once."""
    proto = tf.make_tensor_proto(value)
    if isinstance(value, np.ndarray) and np.ptp(value) == 0:
        proto = tf.make_tensor_proto(value.flat[0], shape=value.shape)
    return proto
