"""What a configuration chooses by name: front ends and networks.

Whoever adds one adds a line here; places are loaded where they are needed.
"""

import dataclasses
import pkgutil
import typing


@dataclasses.dataclass(frozen=True)
class Network:
    """What a configuration has to know of a network before it is built.

    `place` is `"module:name"`, or the thing itself: a function of a `ModelConfig`, the
    number of classes, a dict from stream to the shape of a clip, and a dtype policy,
    that builds the network (`lca_keras.models.backbone.Backbone`).
    """

    place: str | typing.Callable
    attention: bool  # It can be trained against a counterfactual.
    streams: tuple[str, ...] = ("mel_spectrogram",)  # Those of the front end it takes.
    least_frames: int = 16  # Of the first one, in a clip: four poolings by two.


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
    return pkgutil.resolve_name(place) if isinstance(place, str) else place
