"""The one thing that training against a counterfactual asks of a network."""

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
        """Computes everything up to the attention.

        Args:
            inputs: What the network takes.
            training: Whether to use batch statistics and dropout.

        Returns:
            Dict of tensors: `"features"` and `"attended"`, as `fuse` takes them;
            `"attention"`, the main branch's, `(batch, weights)`; and `"maps"`, what
            `fuse` gives for that attention.
        """

    def new_attention(self, name):
        """Makes the layer that learns the counterfactual attention.

        Args:
            name: String, name of the layer.

        Returns:
            A built layer from `"attended"` to an attention, usually an untrained one
            of the network's own kind.
        """

    def fuse(self, features, attended, attention):
        """Applies an attention.

        Args:
            features: `"features"` of `encode`.
            attended: `"attended"` of `encode`.
            attention: Tensor `(batch, weights)`.

        Returns:
            Maps, as `embed` takes them.
        """

    def embed(self, maps):
        """Computes what the classifier sees.

        Args:
            maps: `"maps"` of `encode`, or what `fuse` gave; the branches' may come
                together in one batch.

        Returns:
            Tensor `(batch, units)`.
        """


def missing_members(network, with_attention):
    """Returns the members of `Backbone` that a network lacks, sorted."""
    needed = {"num_classes", "dropout", "classifier", "encode", "embed"}
    if with_attention:
        needed |= {"new_attention", "fuse"}
    return sorted(name for name in needed if not hasattr(network, name))
