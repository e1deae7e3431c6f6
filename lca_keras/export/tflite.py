"""TFLite models of one clip, for phones."""

import tempfile

import keras
import tensorflow as tf

from lca_keras.export.signatures import encoder_input


def float32(network):
    """Converts a network to a float32 TFLite model of one clip, built-in ops only.

    Args:
        network: `SingerNetwork` for inference.

    Returns:
        Bytes; input `mel_spectrogram` `(1, mel_bins, clip_frames, 1)` (and `melody`
        of the same shape, where the network takes it), outputs
        `probabilities` `(1, classes)` and `embedding` `(1, units)`.
    """

    def identify(*inputs):
        both = tf.concat(inputs, axis=-1)
        maps = network.encoder(encoder_input(network, both), training=False)["maps"]
        embedding = network.embedder(maps)
        logits = network.classifier(embedding)
        return {"probabilities": network.probabilities(logits), "embedding": embedding}

    shape = (1, *keras.tree.flatten(network.input)[0].shape[1:])
    names = ["mel_spectrogram", "melody"][: 2 if network.takes_melody else 1]
    specs = [tf.TensorSpec(shape, tf.float32, name) for name in names]
    with tempfile.TemporaryDirectory() as folder:
        archive = keras.export.ExportArchive()
        archive.track(network)
        archive.add_endpoint("serving_default", identify, specs)
        archive.write_out(folder, verbose=False)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
        return converter.convert()


# Each file of an export, and what makes its bytes from a network.
VARIANTS = {"model.tflite": float32}
