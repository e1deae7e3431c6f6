"""Exports: a SavedModel for TF Serving and TFLite models for phones.

`saved_models/<name>/<version>/` holds the main branch only, complete without this
package's code.
"""

import pathlib

from lca_keras import files
from lca_keras.export import integrity, tflite_file, versions


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
        `pathlib.Path` of the version.

    Raises:
        OSError: The folder cannot be written to.
    """
    # TensorFlow loads here, not with those who only look for a version.
    from lca_keras.export import savedmodel, tflite
    from lca_keras.export.card import model_card

    folder = pathlib.Path(root, name)
    features = config.features
    with versions.staging(folder) as temporary:
        told = {
            "name": name,
            "artists": artists,
            "sample_rate": features.sample_rate,
            "clip_frames": config.clip_frames,
            "clip_seconds": config.clip_frames
            * features.hop_length
            / features.sample_rate,
            "temperature": network.temperature,
            "config": config.to_dict(),
        }
        savedmodel.write(network, artists, config, temporary, told)
        content = tflite_file.packed(tflite.convert(network), artists, told)
        (temporary / tflite_file.DEFAULT).write_bytes(content)
        (temporary / "labels.txt").write_text(
            "".join(f"{artist}\n" for artist in artists), encoding="utf-8"
        )
        metadata = {
            **told,
            "parameters": network.count_params(),
            "metrics": metrics,
            **(about or {}),
        }
        files.write_json(temporary / versions.METADATA, metadata)
        (temporary / "model_card.md").write_text(model_card(metadata), encoding="utf-8")
        integrity.write_sums(temporary)
        return versions.publish(temporary, folder)
