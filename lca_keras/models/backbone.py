"""What training, and what serving asks of a network."""

import typing


class Backbone(typing.Protocol):
    """A Keras model that `LCAModel` can train against a counterfactual attention.

    An attention here is anything, `(batch, weights)`, that `fuse` applies to attended
    maps: over the shifts of `CRNNFGNL`, over channels as in squeeze-and-excitation.
    With `method="none"` only `encode` (then with `"maps"` alone), `embed`, `dropout`,
    `classifier` and `num_classes` are used.

    Attributes:
        num_classes: Int, number of artists.
        dropout: Dropout layer before the classifier, of the main branch.
        classifier: Layer from embedding to logits, `(batch, num_classes)`.
    """

    num_classes: int
    dropout: typing.Any
    classifier: typing.Any

    def encode(self, inputs, training=None):
        """Computes everything up to the attention, of what the network takes.

        With batch statistics and dropout in training.

        Returns:
            Dict of tensors: `"features"` and `"attended"`, as `fuse` takes them;
            `"attention"`, the main branch's, `(batch, weights)`; and `"maps"`, what
            `fuse` gives for that attention.
        """

    def new_attention(self, name):
        """Makes the layer of this name that learns the counterfactual attention.

        It is built, from `"attended"` to an attention, and usually an untrained one of
        the network's own kind.
        """

    def fuse(self, features, attended, attention):
        """Applies an attention `(batch, weights)`; returns maps, as `embed` takes them.

        `features` and `attended` are those of `encode`.
        """

    def embed(self, maps):
        """Computes what the classifier sees, `(batch, units)`.

        The maps are those of `encode`, or what `fuse` gave; the branches' may come
        together in one batch.
        """


class ServedBackbone(Backbone, typing.Protocol):
    """What it must have beside that to be calibrated, compared, exported, explained.

    Its layers are found by nobody: whoever serves it asks it.

    Attributes:
        probabilities: Layer from logits to probabilities, at the network's temperature.
        temperature: Float, softmax temperature.
        embedding_size: Int, numbers in the embedding of a clip.
        voiceprint_size: Int, numbers in its voiceprint.
    """

    probabilities: typing.Any
    temperature: float
    embedding_size: int
    voiceprint_size: int

    def describe(self, maps):
        """What is told of the `"maps"` of `encode` beside the singer.

        Returns:
            Dict of float32 tensors: `"embedding"` `(batch, embedding_size)` as `embed`
            gives it, and `"voiceprint"` `(batch, voiceprint_size)`, by which voices are
            compared.
        """

    def for_inference(self, temperature):
        """Returns a float32 copy with the same weights and a softmax temperature."""

    def unrolled(self):
        """Returns a network like it without loops, for full integers; or itself."""

    def map_layers(self):
        """Where class activation maps can be taken, the finest first.

        Returns:
            Dict from name to a pair of functions: of what the network takes, to maps
            `(batch, mel, time, channels)` and to whatever leads on beside them; and of
            both, to the `"maps"` of `encode`. Empty if it has no such maps.
        """


_TRAINED = {"num_classes", "dropout", "classifier", "encode", "embed"}
_COUNTERFACTUAL = {"new_attention", "fuse"}
_SERVED = {"probabilities", "temperature", "embedding_size", "voiceprint_size"}
_SERVED |= {"describe", "for_inference", "unrolled", "map_layers"}


def missing_members(network, with_attention=False, served=False):
    """Returns the members of the protocols that a network lacks, sorted."""
    needed = _TRAINED | (_COUNTERFACTUAL if with_attention else set())
    needed |= _SERVED if served else set()
    return sorted(name for name in needed if not hasattr(network, name))
