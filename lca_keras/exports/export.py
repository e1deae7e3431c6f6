"""Exports: a SavedModel for TF Serving and TFLite models for phones.

`saved_models/<name>/<version>/` holds the main branch only, complete without this
package's code.
"""

import pathlib

from lca_keras.base import files
from lca_keras.base.config import Config
from lca_keras.exports import integrity, tflite_file, versions
from lca_keras.voices.gallery import Gallery

# What the models of a version answer when they are asked about themselves.
_TOLD = (
    *("name", "artists", "sample_rate", "clip_frames", "clip_seconds", "temperature"),
    *("config", "gallery"),
)


def export_model(
    network, artists, config, root, name, metrics, about=None, gallery=None
):
    """Writes the next version of a model below `root`; returns its path.

    `network` is a `ServedBackbone` for inference, as `LCAModel.main_branch()` gives,
    `metrics` are for the card, `about` are further facts for the metadata (run, corpus,
    date). Without a gallery any song has a singer.
    """
    # TensorFlow loads here, not with those who only look for a version.
    from lca_keras.exports import tflite

    folder = pathlib.Path(root, name)
    front_end = config.front_end
    metadata = {
        "name": name,
        "artists": artists,
        "sample_rate": front_end.sample_rate,
        "clip_frames": config.clip_frames,
        "clip_seconds": config.clip_frames / front_end.frame_rate,
        "temperature": network.temperature,
        "config": config.to_dict(),
        "gallery": None if gallery is None else gallery.to_dict(),
        "parameters": network.count_params(),
        "metrics": metrics,
        **(about or {}),
    }
    with versions.staging(folder) as temporary:
        detector = None if gallery is None else gallery.detector
        lite = tflite.convert(network, config, detector=detector)
        _write(temporary, network, metadata, lite)
        return versions.publish(temporary, folder)


def with_gallery(folder, gallery):
    """Writes the next version of a model, that in `folder` with another gallery."""
    from lca_keras.exports import savedmodel

    network = savedmodel.read_network(folder)
    metadata = files.read_json(folder / versions.METADATA)
    metadata["gallery"] = gallery.to_dict()
    with versions.staging(folder.parent) as temporary:
        lite = tflite_file.unpacked(folder / tflite_file.DEFAULT)
        _write(temporary, network, metadata, lite)
        return versions.publish(temporary, folder.parent, {"from": str(folder)})


def _write(folder, network, metadata, lite):
    """Writes all files of a version; `lite` are the bytes of its TFLite model."""
    from lca_keras.exports import savedmodel
    from lca_keras.exports.card import model_card

    told = {name: metadata[name] for name in _TOLD}
    config, artists = Config.from_dict(told["config"]), told["artists"]
    gallery = told["gallery"] and Gallery.from_dict(told["gallery"])
    savedmodel.write(network, artists, config, folder, told, gallery)
    content = tflite_file.packed(lite, artists, told)
    (folder / tflite_file.DEFAULT).write_bytes(content)
    singers = [*artists, *(gallery.enrolled if gallery else ())]
    labels = "".join(f"{singer}\n" for singer in singers)
    (folder / tflite_file.LABELS).write_text(labels, encoding="utf-8")
    files.write_json(folder / versions.METADATA, metadata)
    (folder / "model_card.md").write_text(model_card(metadata), encoding="utf-8")
    integrity.write_sums(folder)
