"""Exports: a SavedModel for TF Serving and a TFLite model for phones.

`saved_models/<name>/<version>/` holds the main branch only, complete without this
package's code. A version appears in one rename, so a server that polls the folder
never sees half a model.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import shutil
import tempfile

from lca_keras import files
from lca_keras.console import UserError

# Clips that go through the network together: bounds memory for long songs. More are
# not faster on a CPU, and their memory makes the first song slow.
_CLIPS_AT_ONCE = 8

METADATA = "lca_keras.json"


@dataclasses.dataclass(frozen=True)
class Export:
    """An exported version: its folder and number."""

    folder: pathlib.Path
    version: int


def export_model(network, artists, config, root, name, metrics, about=None):
    """Writes the next version of a model.

    A network that takes the melody too is exported with both inputs: every signature
    that takes a waveform or a spectrogram then also takes `melody`, float32 `(batch,
    mel_bins, frames, 1)` on the spectrogram's frames.

    Args:
        network: `SingerNetwork` for inference, as `LCAModel.main_branch()` gives.
        artists: List of class names, in class order.
        config: `lca_keras.config.Config` of the run.
        root: Folder of all exports, usually `saved_models`.
        name: Name of the model, a folder below `root`.
        metrics: Dict of scores for the model card.
        about: Optional dict of further facts for the metadata (run, corpus, date).

    Returns:
        `Export`.

    Raises:
        OSError: The folder cannot be written to.
    """
    folder = pathlib.Path(root, name)
    folder.mkdir(parents=True, exist_ok=True)
    # Within `folder`, for the rename; servers pass over names that are no numbers.
    temporary = pathlib.Path(tempfile.mkdtemp(prefix=".export-", dir=folder))
    try:
        _write_saved_model(network, artists, config, temporary)
        (temporary / "model.tflite").write_bytes(convert_to_tflite(network))
        (temporary / "labels.txt").write_text(
            "".join(f"{artist}\n" for artist in artists), encoding="utf-8"
        )
        metadata = {
            "name": name,
            "artists": artists,
            "sample_rate": config.features.sample_rate,
            "clip_frames": config.train.clip_frames,
            "clip_seconds": config.train.clip_frames
            * config.features.hop_length
            / config.features.sample_rate,
            "temperature": network.probabilities.temperature,
            "parameters": network.count_params(),
            "config": config.to_dict(),
            "metrics": metrics,
            **(about or {}),
        }
        files.write_json(temporary / METADATA, metadata)
        (temporary / "model_card.md").write_text(model_card(metadata), encoding="utf-8")
        os.chmod(temporary, 0o755)  # mkdtemp's folder is for its owner alone.
        return _publish(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _publish(temporary, folder):
    """Renames a finished export to the next free version number."""
    while True:
        version = max(versions(folder), default=0) + 1
        try:
            os.rename(temporary, folder / str(version))
        except OSError:
            if not (folder / str(version)).exists():
                raise
            continue  # Another process took the number meanwhile.
        return Export(folder / str(version), version)


def versions(folder):
    """Returns the version numbers in a model's folder, ascending."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        return sorted(int(name) for name in os.listdir(folder) if name.isdecimal())
    return []


def find_version(folder, version=None):
    """Returns the folder of a version of a model, the newest by default.

    Args:
        folder: `saved_models/NAME`, or a version's own folder.
        version: Optional int.

    Returns:
        `pathlib.Path`.

    Raises:
        UserError: There is no such model or version.
    """
    folder = pathlib.Path(folder)
    if version is None and (folder / "saved_model.pb").exists():
        return folder
    available = versions(folder)
    if not available and (folder / "metrics.json").exists():
        exported = files.read_json(folder / "metrics.json").get("export")
        raise UserError(f"{folder} is a run; its exported model is {exported}")
    if not available:
        raise UserError(
            f"{folder}: no exported model. Expected saved_models/NAME, as printed at "
            "the end of `python -m lca_keras.fit`."
        )
    if version is not None and version not in available:
        raise UserError(f"{folder}: no version {version}; available: {available}")
    return folder / str(version or available[-1])


def takes_melody(network):
    """Whether a network takes the melody beside the spectrogram."""
    return isinstance(network.input, dict)


def _encoder_input(network, clips):
    """What the encoder takes, of clips with the inputs as channels."""
    if not takes_melody(network):
        return clips
    return {"mel_spectrogram": clips[..., :1], "melody": clips[..., 1:]}


def _write_saved_model(network, artists, config, folder):
    import keras
    import tensorflow as tf

    from lca_keras.data.store import parse_example
    from lca_keras.layers import MelFrontEnd

    features, clip_frames = config.features, config.train.clip_frames
    front_end = MelFrontEnd(features)
    embedder = network.embedder
    names = tf.constant(artists)
    # Spectrogram and melody travel as the channels of one tensor.
    channels = 2 if takes_melody(network) else 1

    def embed_clips(clips):
        """(clips, mel_bins, clip_frames, channels) -> (clips, units), a few at once."""
        count = tf.shape(clips)[0]
        steps = -(-count // _CLIPS_AT_ONCE)
        outputs = tf.TensorArray(
            tf.float32, size=steps, infer_shape=False, element_shape=(None, units)
        )
        for step in tf.range(steps):
            start = step * _CLIPS_AT_ONCE
            batch = clips[start : start + _CLIPS_AT_ONCE]
            maps = network.encoder(_encoder_input(network, batch), training=False)
            outputs = outputs.write(step, embedder(maps["maps"]))
        return outputs.concat()

    units = embedder.output.shape[-1]
    clip_shape = (None, features.mel_bins, clip_frames, channels)
    embed_clips = tf.autograph.experimental.do_not_convert(
        tf.function(
            embed_clips, input_signature=[tf.TensorSpec(clip_shape, tf.float32)]
        )
    )

    def embed_songs(mel, melody):
        """(batch, mel_bins, frames, 1) of both -> (batch, clips, units)."""
        # The C++ interface does not check shapes against the signature.
        song_shape = (None, features.mel_bins, None, 1)
        songs = tf.ensure_shape(mel, song_shape)
        if melody is not None:
            songs = tf.concat([songs, tf.ensure_shape(melody, song_shape)], axis=-1)
        batch, clips = tf.shape(songs)[0], tf.shape(songs)[2] // clip_frames
        long_enough = tf.debugging.Assert(
            clips > 0,
            [
                f"too short: a clip is {clip_frames} frames, received",
                tf.shape(songs)[2],
            ],
        )
        with tf.control_dependencies([long_enough]):
            pieces = songs[:, :, : clips * clip_frames]
        shape = (batch, features.mel_bins, clips, clip_frames, channels)
        pieces = tf.transpose(tf.reshape(pieces, shape), (0, 2, 1, 3, 4))
        pieces = tf.reshape(pieces, (-1, *clip_shape[1:]))
        return tf.reshape(embed_clips(pieces), (batch, clips, units))

    def classify(embeddings):
        return network.probabilities(network.classifier(embeddings))

    def decide(clip_probabilities):
        """(batch, clips, classes) -> the outputs of a signature."""
        return {
            "probabilities": tf.reduce_mean(clip_probabilities, axis=1),
            "singer": tf.gather(names, vote(clip_probabilities)),
            "frame_probabilities": clip_probabilities,
        }

    def mel_of(waveform):
        return front_end(tf.ensure_shape(waveform, (None, None)))

    def from_waveform(waveform, melody=None):
        return decide(classify(embed_songs(mel_of(waveform), melody)))

    def from_mel(mel_spectrogram, melody=None):
        return decide(classify(embed_songs(mel_spectrogram, melody)))

    def embed(waveform, melody=None):
        embeddings = embed_songs(mel_of(waveform), melody)
        return {
            "embedding": tf.reduce_mean(embeddings, axis=1),
            "frame_embeddings": embeddings,
        }

    def from_examples(examples):
        def one(serialized):
            example = parse_example(serialized, melody=channels == 2)
            mel = tf.cast(
                tf.ensure_shape(example["mel"], (features.mel_bins, None)), tf.float32
            )
            melody = None
            if channels == 2:
                bands = tf.cast(example["melody"], tf.int32)
                melody = tf.one_hot(bands, features.mel_bins, axis=0)[None, ..., None]
            probabilities = classify(embed_songs(mel[None, ..., None], melody))[0]
            winner = vote(probabilities[None])[0]
            return tf.reduce_mean(probabilities, axis=0), winner

        # Songs differ in length, so they go through one by one.
        probabilities, winners = tf.map_fn(
            one, examples, fn_output_signature=(tf.float32, tf.int64)
        )
        return {"probabilities": probabilities, "singer": tf.gather(names, winners)}

    waveform = tf.TensorSpec((None, None), tf.float32, "waveform")
    song_shape = (None, features.mel_bins, None, 1)
    mel = tf.TensorSpec(song_shape, tf.float32, "mel_spectrogram")
    melody = [tf.TensorSpec(song_shape, tf.float32, "melody")][: channels - 1]
    examples = tf.TensorSpec((None,), tf.string, "examples")
    archive = keras.export.ExportArchive()
    archive.track(network)
    archive.add_endpoint("serving_default", from_waveform, [waveform, *melody])
    archive.add_endpoint("mel", from_mel, [mel, *melody])
    archive.add_endpoint("embed", embed, [waveform, *melody])
    archive.add_endpoint("examples", from_examples, [examples])
    archive.write_out(os.fspath(folder), verbose=False)
    _write_warmup(folder, config, takes_melody(network))


def vote(clip_probabilities):
    """`lca_keras.metrics.vote` for a batch, inside a graph.

    Args:
        clip_probabilities: Float tensor `(batch, clips, classes)`.

    Returns:
        Int64 tensor `(batch,)`, class indices.
    """
    import tensorflow as tf

    classes = tf.shape(clip_probabilities)[-1]
    winners = tf.one_hot(tf.argmax(clip_probabilities, axis=-1), classes)
    counts = tf.reduce_sum(winners, axis=1)
    sums = tf.reduce_sum(clip_probabilities, axis=1)
    tied = tf.equal(counts, tf.reduce_max(counts, axis=-1, keepdims=True))
    return tf.argmax(tf.where(tied, sums, -1.0), axis=-1)


def _write_warmup(folder, config, melody):
    """Requests that TF Serving runs before it serves: the first one is slow."""
    import numpy as np
    import tensorflow as tf
    from tensorflow_serving.apis import model_pb2, predict_pb2, prediction_log_pb2

    features, frames = config.features, config.train.clip_frames
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


def convert_to_tflite(network):
    """Converts a network to a float32 TFLite model of one clip, built-in ops only.

    Args:
        network: `SingerNetwork` for inference.

    Returns:
        Bytes; input `mel_spectrogram` `(1, mel_bins, clip_frames, 1)` (and `melody`
        of the same shape, where the network takes it), outputs
        `probabilities` `(1, classes)` and `embedding` `(1, units)`.
    """
    import keras
    import tensorflow as tf

    def identify(*inputs):
        both = tf.concat(inputs, axis=-1)
        maps = network.encoder(_encoder_input(network, both), training=False)["maps"]
        embedding = network.embedder(maps)
        logits = network.classifier(embedding)
        return {"probabilities": network.probabilities(logits), "embedding": embedding}

    shape = (1, *keras.tree.flatten(network.input)[0].shape[1:])
    names = ["mel_spectrogram", "melody"][: 2 if takes_melody(network) else 1]
    specs = [tf.TensorSpec(shape, tf.float32, name) for name in names]
    with tempfile.TemporaryDirectory() as folder:
        archive = keras.export.ExportArchive()
        archive.track(network)
        archive.add_endpoint("serving_default", identify, specs)
        archive.write_out(folder, verbose=False)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
        return converter.convert()


def _heard(config):
    """What a model listens to, in words."""
    features = config["features"]
    heard = "the song"
    if features["source"] == "vocals":
        heard = f"the song's vocals alone (separator `{features['separator']}`)"
    if config["model"]["name"] == "crnnm":
        heard += f" and its melody (`{features['melody']}`)"
    return heard


def model_card(metadata):
    """Describes an exported model for people.

    Args:
        metadata: Dict, as written to `lca_keras.json`.

    Returns:
        Markdown text.
    """
    test = metadata["metrics"].get("test", {})
    rows = []
    for level, title in (("frame", "clips"), ("song", "songs")):
        if level in test:
            scores = test[level]
            rows.append(
                f"| {level} | {scores['count']} {title} | {scores['f1']:.3f} | "
                f"{scores['f1_macro']:.3f} | {scores['accuracy']:.3f} |"
            )
    config = metadata["config"]
    return "\n".join(
        [
            f"# {metadata['name']}",
            "",
            "Identifies the singer of a song among "
            f"{len(metadata['artists'])} known ones. A recording of anybody else is "
            "given one of these names too.",
            "",
            f"- Network: `{config['model']['name']}`, {metadata['parameters']:,} "
            f"parameters, trained with method `{config['train']['method']}`",
            f"- Input: {_heard(config)}, mono at {metadata['sample_rate']} Hz, at "
            f"least {metadata['clip_seconds']:.2f} s",
            f"- Softmax temperature: {metadata['temperature']:.3f}, fitted on "
            "validation clips",
            f"- Split: by {config['split']['kind']}",
            "",
            "## Scores on the held-out test songs",
            "",
            "| level | scored | F1 (weighted) | F1 (macro) | accuracy |",
            "| --- | --- | --- | --- | --- |",
            *rows,
            "",
            "Expected calibration error on test clips: "
            f"{test.get('calibration_error_before', float('nan')):.3f} before, "
            f"{test.get('calibration_error_after', float('nan')):.3f} after the "
            "temperature.",
            "",
            "## Artists",
            "",
            *(f"- {artist}" for artist in metadata["artists"]),
            "",
            "## Configuration",
            "",
            "```json",
            json.dumps(config, indent=2, ensure_ascii=False),
            "```",
            "",
        ]
    )
