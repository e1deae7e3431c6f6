"""Labels of versions, in the model config that TF Serving reads.

`saved_models/models.config` lists the models that were pushed, with the versions that a
server is to load: those that have a label. Start it with
`--model_config_file=models.config --model_config_file_poll_wait_seconds=10
--allow_version_labels_for_unavailable_models`.
"""

import os
import pathlib

from lca_keras.base import files
from lca_keras.base.errors import UserError
from lca_keras.exports import versions

CONFIG = "models.config"
# What clients ask for: the version in use, and the one on trial.
LABELS = ("stable", "canary")


def labels_of(folder):
    """Dict from label to version of a model's folder."""
    folder = pathlib.Path(folder)
    model = _model(_read(folder.parent), folder.name)
    return {} if model is None else dict(model.version_labels)


def assign(folder, label, version, base_path=None):
    """Gives a label to a version, or takes it away; returns what `labels_of` then does.

    Args:
        folder: Folder of the model.
        label: One of `LABELS`.
        version: Number of a version that is there, or `None`.
        base_path: Folder of all models as the server sees it; by default the one it
            has been told before, at first this machine's.
    """
    versions.find_version(folder, version)
    return _update(folder, lambda labels: {label: version}, base_path)


def follow(folder, version, label="stable", base_path=None):
    """As `assign`, for the version that was pushed last.

    A trial that began before this version ends with it.
    """

    def change(labels):
        over = labels.get("canary", version) < version
        return {**({"canary": None} if over else {}), label: version}

    return _update(folder, change, base_path)


def _update(folder, change, base_path):
    """Labels of a model after a change: from those of now to a dict of new ones."""
    from google.protobuf import text_format

    folder = pathlib.Path(folder)
    root = folder.parent
    with files.lock(root / ".lock"):
        config = _read(root)
        model = _model(config, folder.name)
        if model is None:
            model = config.model_config_list.config.add(
                name=folder.name,
                base_path=os.path.abspath(folder),
                model_platform="tensorflow",
            )
        if base_path is not None:
            model.base_path = f"{base_path.rstrip('/')}/{folder.name}"
        labels = dict(model.version_labels)
        labels |= change(labels)
        labels = {label: number for label, number in labels.items() if number}
        model.version_labels.clear()
        model.version_labels.update(labels)
        model.ClearField("model_version_policy")  # Without labels the newest one.
        if labels:
            served = model.model_version_policy.specific.versions
            served.extend(sorted(set(labels.values())))
        with files.atomic_path(root / CONFIG) as temporary:
            text = text_format.MessageToString(config, as_utf8=True)
            temporary.write_text(text, encoding="utf-8")
    return labels


def _model(config, name):
    models = config.model_config_list.config
    return next((model for model in models if model.name == name), None)


def _read(root):
    """The `ModelServerConfig` of a folder of models."""
    from google.protobuf import text_format
    from tensorflow_serving.config import model_server_config_pb2

    path, config = root / CONFIG, model_server_config_pb2.ModelServerConfig()
    if path.exists():
        try:
            text_format.Parse(path.read_text(encoding="utf-8"), config)
        except (text_format.ParseError, ValueError) as error:
            raise UserError(f"{path} is no model config of TF Serving: {error}") from (
                error
            )
    return config
