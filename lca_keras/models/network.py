"""What all singer networks share: trunk of convolution blocks and recurrent head."""

import keras
from keras import layers, regularizers

from lca_keras.layers import CalibratedSoftmax, ConvBlock, FusedBatchNormalization


def conv_trunk(inputs, filters, pool_sizes, dropout, dtype, prefix=""):
    """Normalises each mel bin, then stacks convolution blocks.

    Args:
        inputs: `KerasTensor`, `(batch, mel_bins, frames, 1)`, decibels.
        filters: Channels of each block.
        pool_sizes: Pooling of each block, a pair or `None`.
        dropout: Dropout rate of the blocks.
        dtype: Dtype policy of the blocks.
        prefix: Put before the layers' names, where a network has several trunks.

    Returns:
        List with the output of every block.
    """
    # In full precision whatever the policy: decibels reach -100, where bfloat16
    # steps by half a decibel.
    norm = FusedBatchNormalization(axis=1, dtype="float32", name=f"{prefix}mel_norm")
    x = norm(inputs)
    outputs = []
    for number, (width, pool_size) in enumerate(
        zip(filters, pool_sizes, strict=True), start=1
    ):
        name = f"{prefix}block{number}"
        block = ConvBlock(width, pool_size, dropout, dtype=dtype, name=name)
        x = block(x)
        outputs.append(x)
    return outputs


class SingerNetwork(keras.Model):
    """Base of the networks: encoder, recurrent embedder, classifier, softmax.

    Subclasses build the encoder graph and hand it over. The parts stay reachable,
    because training against a counterfactual and exporting need them one by one.

    Attributes:
        encoder: `keras.Model` from `(batch, mel_bins, frames, 1)` decibels, or a dict
            of several inputs, to a dict with at least `"maps"`,
            `(batch, mel, time, channels)`.
        embedder: `keras.Model` from maps to the embedding `(batch, gru_units)`.
        head_dropout: The dropout layer between embedding and classifier.
        classifier: `Dense` layer, embedding to logits.
        probabilities: `CalibratedSoftmax` layer.

    Args:
        encoder: See above.
        num_classes: Int, number of artists.
        gru_units: Int, width of both recurrent layers.
        head_dropout: Float, dropout rate before the classifier.
        temperature: Float, softmax temperature.
        regularize: Whether the classifier carries the penalties of CRNN_FGNL, L2 on
            its kernel and L1 on its logits (0.01 each; Keras divides the latter by
            the batch size).
        **kwargs: As for `keras.Model`.
    """

    def __init__(
        self,
        encoder,
        num_classes,
        gru_units,
        head_dropout,
        temperature,
        regularize,
        **kwargs,
    ):
        if num_classes < 2:
            raise ValueError(
                "Telling singers apart needs at least two. "
                f"Received: num_classes={num_classes}"
            )
        # === Layers ===
        mel, time, channels = encoder.output["maps"].shape[1:]
        maps = keras.Input((mel, time, channels), name="maps")
        x = layers.Permute((2, 1, 3), name="time_major")(maps)
        # (batch, time, mel, channels) -> (batch, time, mel * channels), mel outer.
        x = layers.Reshape((time, mel * channels), name="flatten_mel")(x)
        # Rounding errors add up along a recurrence, and these layers are small: full
        # precision. Without cuDNN, since an export from a GPU has to run on a CPU,
        # and a recurrence of a few dozen steps compiles with the rest.
        settings = {"dtype": "float32", "use_cudnn": False}
        x = layers.GRU(gru_units, return_sequences=True, name="gru1", **settings)(x)
        x = layers.GRU(gru_units, name="gru2", **settings)(x)
        embedder = keras.Model(maps, x, name="embedder")
        dropout = layers.Dropout(head_dropout, dtype="float32", name="head_dropout")
        classifier = layers.Dense(
            num_classes,
            kernel_regularizer=regularizers.L2(0.01) if regularize else None,
            activity_regularizer=regularizers.L1(0.01) if regularize else None,
            dtype="float32",
            name="classifier",
        )
        softmax = CalibratedSoftmax(temperature, name="probabilities")

        # === Functional model ===
        inputs = keras.tree.map_structure(
            lambda tensor: keras.Input(tensor.shape[1:], name=tensor.name),
            encoder.input,
        )
        embedding = embedder(encoder(inputs)["maps"])
        outputs = softmax(classifier(dropout(embedding)))
        super().__init__(inputs=inputs, outputs=outputs, **kwargs)

        # === Config ===
        self.encoder = encoder
        self.embedder = embedder
        self.head_dropout = dropout
        self.classifier = classifier
        self.probabilities = softmax
        self.num_classes = num_classes

    def for_inference(self, temperature):
        """Returns a float32 copy with the same weights and a softmax temperature."""
        config = {**self.get_config(), "temperature": temperature, "dtype": "float32"}
        copy = type(self).from_config(config)
        copy.set_weights(self.get_weights())
        return copy
