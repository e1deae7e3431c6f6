"""What a configuration chooses by name: front ends and networks.

Whoever adds one adds a line here. Places are loaded where they are needed, so a name
costs nothing to those that choose another.
"""

import dataclasses
import importlib
import typing


@dataclasses.dataclass(frozen=True)
class Network:
    """What a configuration has to know of a network before it is built.

    Attributes:
        place: `"module:name"`, or the thing itself: a function of a `ModelConfig`, the
            number of classes, a dict from stream to the shape of a clip, and a dtype
            policy, that builds the network (`lca_keras.models.backbone.Backbone`).
        attention: Whether it can be trained against a counterfactual.
        streams: Names of the front end's streams that it takes.
        least_frames: Int, frames of the first one in its shortest clip.
    """

    place: str | typing.Callable
    attention: bool
    streams: tuple[str, ...] = ("mel_spectrogram",)
    least_frames: int = 16  # Four poolings by two.


NETWORKS = {
    "crnn": Network("lca_keras.models.crnn:CRNN.of_config", False),
    "crnnm": Network(
        "lca_keras.models.crnn:CRNNM.of_config", False, ("mel_spectrogram", "melody")
    ),
    "crnn_fgnl": Network("lca_keras.models.crnn:CRNNFGNL.of_config", True),
}

# Functions of a `FeatureConfig` that make a `lca_keras.features.front_end.FrontEnd`.
FRONT_ENDS = {"mel": "lca_keras.features.mel:front_end"}


def load(place):
    """The thing at `"module:name.of.it"`; a thing itself is returned as it is."""
    if not isinstance(place, str):
        return place
    module, _, names = place.partition(":")
    found = importlib.import_module(module)
    for name in names.split("."):
        found = getattr(found, name)
    return found
