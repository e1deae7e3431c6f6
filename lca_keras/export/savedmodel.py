"""The SavedModel for TF Serving: its signatures, and their warm-up."""

import os

import keras
import numpy as np
import tensorflow as tf

from lca_keras import files
from lca_keras.config import Config
from lca_keras.data.clips import sound_first
from lca_keras.data.examples import parse_example
from lca_keras.errors import UserError
from lca_keras.export.versions import METADATA
from lca_keras.layers import MelFrontEnd
from lca_keras.models.factory import build_network

# Clips that go through the network together: bounds memory for long songs. More are
# not faster on a CPU, and their memory makes the first song slow.
_CLIPS_AT_ONCE = 8


class ServedNetwork:
    """The signatures of an exported network, one method each.

    Results for a song do not depend on what else is in the batch, nor on silence: it is
    cut out before clips are cut, as `lca_keras.audio.features.kept_frames` says. Clips
    that are not filled with what is left are last, have no vote, and their own
    probabilities and embeddings are zero. So are all of a song that fills no clip, or
    has samples that are not finite; its singer is empty.

    Args:
        network: `SingerNetwork` for inference.
        artists: List of class names, in class order.
        config: `lca_keras.config.Config` of the run.
    """

    def __init__(self, network, artists, config):
        self.network = network
        self.names = tf.constant(artists)
        self.mel_bins = config.features.mel_bins
        self.clip_frames = config.clip_frames
        self.front_end = MelFrontEnd(config.features)
        self.units = network.embedder.output.shape[-1]
        # Spectrogram and melody travel as the channels of one tensor.
        self.channels = 2 if network.takes_melody else 1
        self.clip_shape = (self.mel_bins, self.clip_frames, self.channels)
        clips = tf.TensorSpec((None, *self.clip_shape), tf.float32)
        self._embed_clips = tf.autograph.experimental.do_not_convert(
            tf.function(self._embed_in_pieces, input_signature=[clips])
        )

    def signatures(self):
        """Dict from name to a method and the list of its inputs' `tf.TensorSpec`s."""
        waveform = tf.TensorSpec((None, None), tf.float32, "waveform")
        song_shape = (None, self.mel_bins, None, 1)
        mel = tf.TensorSpec(song_shape, tf.float32, "mel_spectrogram")
        melody = [tf.TensorSpec(song_shape, tf.float32, "melody")][: self.channels - 1]
        examples = tf.TensorSpec((None,), tf.string, "examples")
        return {
            "serving_default": (self.from_waveform, [waveform, *melody]),
            "mel": (self.from_mel, [mel, *melody]),
            "clips": (self.from_clips, [mel, *melody]),
            "embed": (self.embed, [waveform, *melody]),
            "examples": (self.from_examples, [examples]),
            "labels": (self.labels_of, [examples]),
        }

    # === Signatures ===

    def from_waveform(self, waveform, melody=None):
        """`(batch, samples)` -> probabilities, singer, frame_probabilities."""
        return self.from_mel(self._mel_of(waveform), melody)

    def from_mel(self, mel_spectrogram, melody=None):
        """`(batch, mel_bins, frames, 1)` -> as `from_waveform`."""
        embeddings, filled = self._embed_songs(mel_spectrogram, melody)
        clips = _only(self._classify(embeddings), filled)
        names = tf.gather(self.names, vote(clips))
        return {
            "probabilities": _mean(clips, filled),
            "singer": tf.where(tf.reduce_any(filled, axis=1), names, ""),
            "frame_probabilities": clips,
        }

    def from_clips(self, mel_spectrogram, melody=None):
        """`(clips, mel_bins, clip_frames, 1)` -> probabilities of each clip.

        For whoever cuts clips otherwise, or a song in pieces.
        """
        clips = tf.ensure_shape(mel_spectrogram, (None, *self.clip_shape[:2], 1))
        if melody is not None:
            melody = tf.ensure_shape(melody, (None, *self.clip_shape[:2], 1))
            clips = tf.concat([clips, melody], axis=-1)
        return {"probabilities": self._classify(self._embed_clips(clips))}

    def embed(self, waveform, melody=None):
        """`(batch, samples)` -> embedding, frame_embeddings."""
        embeddings, filled = self._embed_songs(self._mel_of(waveform), melody)
        embeddings = _only(embeddings, filled)
        return {
            "embedding": _mean(embeddings, filled),
            "frame_embeddings": embeddings,
        }

    def from_examples(self, examples):
        """`(batch,)` serialised records of a feature store -> as `from_waveform`.

        With `decision`, one-hot `(batch, classes)`, instead of `frame_probabilities`;
        zeros where nobody is named.
        """

        def one(serialized):
            columns = ("mel", "melody")[: self.channels]
            example = parse_example(serialized, columns)
            mel = tf.ensure_shape(example["mel"], (self.mel_bins, None))
            mel = tf.cast(mel, tf.float32)[None, ..., None]
            melody = None
            if self.channels == 2:
                bands = tf.cast(example["melody"], tf.int32)
                melody = tf.one_hot(bands, self.mel_bins, axis=0)[None, ..., None]
            outputs = self.from_mel(mel, melody)
            return outputs["probabilities"][0], outputs["singer"][0]

        # Songs differ in length, so they go through one by one.
        probabilities, singers = tf.map_fn(
            one, examples, fn_output_signature=(tf.float32, tf.string)
        )
        return {
            "probabilities": probabilities,
            "singer": singers,
            "decision": self._one_hot(singers),
        }

    def labels_of(self, examples):
        """`(batch,)` serialised records -> their true artists, one-hot.

        For TensorFlow Model Analysis, which takes labels in the model's classes.
        """
        spec = {"artist": tf.io.FixedLenFeature([], tf.string)}
        artists = tf.io.parse_example(examples, spec)["artist"]
        return {"label": self._one_hot(artists)}

    # === Their parts ===

    def _one_hot(self, singers):
        return tf.cast(tf.equal(singers[:, None], self.names), tf.float32)

    def _mel_of(self, waveform):
        return self.front_end(tf.ensure_shape(waveform, (None, None)))

    def _classify(self, embeddings):
        return self.network.probabilities(self.network.classifier(embeddings))

    def _embed_songs(self, mel, melody):
        """(batch, mel_bins, frames, 1) of both -> (batch, clips, units), filled.

        The latter says which clips are filled with sound, bool (batch, clips).
        """
        # The C++ interface does not check shapes against the signature.
        song_shape = (None, self.mel_bins, None, 1)
        songs = tf.ensure_shape(mel, song_shape)
        if melody is not None:
            songs = tf.concat([songs, tf.ensure_shape(melody, song_shape)], axis=-1)
        order, kept = sound_first(songs[..., 0], self.front_end.feature_config)
        songs = tf.gather(songs, order, axis=2, batch_dims=1)
        frames = self.clip_frames
        batch, clips = tf.shape(songs)[0], tf.shape(songs)[2] // frames
        long_enough = tf.debugging.Assert(
            clips > 0,
            [f"too short: a clip is {frames} frames, received", tf.shape(songs)[2]],
        )
        with tf.control_dependencies([long_enough]):
            pieces = songs[:, :, : clips * frames]
        shape = (batch, self.mel_bins, clips, frames, self.channels)
        pieces = tf.transpose(tf.reshape(pieces, shape), (0, 2, 1, 3, 4))
        pieces = tf.reshape(pieces, (-1, *self.clip_shape))
        embeddings = tf.reshape(self._embed_clips(pieces), (batch, clips, self.units))
        return embeddings, (1 + tf.range(clips)) * frames <= kept[:, None]

    def _embed_in_pieces(self, clips):
        """(clips, mel_bins, clip_frames, channels) -> (clips, units), a few at once."""
        count = tf.shape(clips)[0]
        steps = -(-count // _CLIPS_AT_ONCE)
        outputs = tf.TensorArray(
            tf.float32, size=steps, infer_shape=False, element_shape=(None, self.units)
        )
        for step in tf.range(steps):
            start = step * _CLIPS_AT_ONCE
            batch = encoder_input(self.network, clips[start : start + _CLIPS_AT_ONCE])
            maps = self.network.encode(batch, training=False)["maps"]
            outputs = outputs.write(step, self.network.embed(maps))
        return outputs.concat()


def _only(values, filled):
    """(batch, clips, n) with zeros for clips without sound."""
    return tf.where(filled[..., None], values, 0.0)


def _mean(values, filled):
    """(batch, clips, n), zero for clips without sound -> their mean (batch, n)."""
    count = tf.reduce_sum(tf.cast(filled, tf.float32), axis=1, keepdims=True)
    return tf.math.divide_no_nan(tf.reduce_sum(values, axis=1), count)


def encoder_input(network, clips):
    """What a network's encoder takes, of clips with the inputs as channels."""
    if not network.takes_melody:
        return clips
    return {"mel_spectrogram": clips[..., :1], "melody": clips[..., 1:]}


def write(network, artists, config, folder):
    """Writes a SavedModel with its signatures and warm-up requests to a folder."""
    archive = keras.export.ExportArchive()
    archive.track(network)
    signatures = ServedNetwork(network, artists, config).signatures()
    for name, (method, specs) in signatures.items():
        archive.add_endpoint(name, method, specs)
    archive.write_out(os.fspath(folder), verbose=False)
    _write_warm_up(folder, config, network.takes_melody)


def read_network(folder):
    """Builds the network of an export again, with its weights.

    Args:
        folder: `pathlib.Path` of a version.

    Returns:
        `lca_keras.models.SingerNetwork`, the main branch, for inference.

    Raises:
        UserError: It is no whole export, or not of this release's networks.
    """
    try:
        about = files.read_json(folder / METADATA)
        config = Config.from_dict(about["config"])
        stored = tf.saved_model.load(os.fspath(folder)).variables
    except (OSError, ValueError, KeyError, UserError) as error:
        raise UserError(f"{folder}: not a whole export ({error})") from error
    network = build_network(
        config.model,
        len(about["artists"]),
        config.clip_frames,
        config.features.mel_bins,
        "float32",
    ).for_inference(about["temperature"])
    values = {variable.name.partition(":")[0]: variable for variable in stored}
    for weight in network.weights:
        value = values.get(weight.path)
        if value is None or value.shape != weight.shape:
            raise UserError(
                f"{folder}: its network is not that of its configuration "
                f"({weight.path}: {None if value is None else value.shape}, expected "
                f"{weight.shape}). Give the run that it comes from"
            )
    for weight in network.weights:
        weight.assign(values[weight.path].numpy())
    return network


def vote(clip_probabilities):
    """`lca_keras.metrics.vote` for a batch, inside a graph.

    Args:
        clip_probabilities: Float tensor `(batch, clips, classes)`; clips of zeros have
            no vote.

    Returns:
        Int64 tensor `(batch,)`, class indices.
    """
    classes = tf.shape(clip_probabilities)[-1]
    winners = tf.one_hot(tf.argmax(clip_probabilities, axis=-1), classes)
    winners *= tf.sign(tf.reduce_max(clip_probabilities, axis=-1, keepdims=True))
    counts = tf.reduce_sum(winners, axis=1)
    sums = tf.reduce_sum(clip_probabilities, axis=1)
    tied = tf.equal(counts, tf.reduce_max(counts, axis=-1, keepdims=True))
    return tf.argmax(tf.where(tied, sums, -1.0), axis=-1)


def _write_warm_up(folder, config, melody):
    """Requests that TF Serving runs before it serves: the first one is slow."""
    from tensorflow_serving.apis import model_pb2, predict_pb2, prediction_log_pb2

    features, frames = config.features, config.clip_frames
    noise = np.random.default_rng(0).normal(0, 0.1, (1, frames * features.hop_length))
    # As many frames as the front end makes of the waveform.
    silence = np.zeros((1, features.mel_bins, frames + 1, 1), "float32")
    inputs = {
        "serving_default": {"waveform": noise.astype("float32")},
        "mel": {"mel_spectrogram": silence},
        "embed": {"waveform": noise.astype("float32")},
    }
    if melody:
        inputs = {name: {**x, "melody": silence} for name, x in inputs.items()}
    path = folder / "assets.extra" / "tf_serving_warmup_requests"
    path.parent.mkdir()
    with tf.io.TFRecordWriter(os.fspath(path)) as writer:
        for signature, tensors in inputs.items():
            request = predict_pb2.PredictRequest(
                model_spec=model_pb2.ModelSpec(signature_name=signature),
                inputs={k: tf.make_tensor_proto(v) for k, v in tensors.items()},
            )
            log = prediction_log_pb2.PredictionLog(
                predict_log=prediction_log_pb2.PredictLog(request=request)
            )
            writer.write(log.SerializeToString())
