"""What all singer networks share: trunk of convolution blocks and recurrent head."""

import keras
from keras import layers, ops, regularizers

from lca_keras.layers import CalibratedSoftmax, ConvBlock, FusedBatchNormalization


def conv_trunk(inputs, filters, pool_sizes, dropout, dtype, prefix=""):
    """Normalises each mel bin, then stacks convolution blocks; returns their outputs.

    Args:
        inputs: `KerasTensor`, `(batch, mel_bins, frames, 1)`, decibels.
        filters, pool_sizes: Channels and pooling (a pair or `None`) of each block.
        dropout, dtype: Dropout rate and dtype policy of the blocks.
        prefix: Put before the layers' names, where a network has several trunks.
    """
    # In full precision whatever the policy: decibels reach -100, where bfloat16
    # steps by half a decibel.
    norm = FusedBatchNormalization(axis=1, dtype="float32", name=f"{prefix}mel_norm")
    x, outputs = norm(inputs), []
    sizes = zip(filters, pool_sizes, strict=True)
    for number, (width, pool_size) in enumerate(sizes, start=1):
        name = f"{prefix}block{number}"
        x = ConvBlock(width, pool_size, dropout, dtype=dtype, name=name)(x)
        outputs.append(x)
    return outputs


class SingerNetwork(keras.Model):
    """Base of the networks: encoder, recurrent embedder, classifier, softmax.

    A subclass has a static method `build_encoder(shape, filters, dropout, dtype,
    **encoder_options)` that returns the encoder of inputs `(mel_bins, clip_frames, 1)`.
    The parts stay reachable, because training against a counterfactual and exporting
    need them one by one.

    Args:
        num_classes: Int, number of artists, at least 2.
        clip_frames: Int, frames of a clip; 94, 157 or 313 in the papers, at least 16.
        mel_bins: Int, mel bands.
        filters: Channels of the four blocks.
        gru_units: Int, width of both recurrent layers.
        block_dropout: Float, dropout rate after every block.
        head_dropout: Float, dropout rate before the classifier.
        temperature: Float, softmax temperature.
        dtype: Dtype policy of the encoder's layers; default is Keras's global one.
            Input normalisation, recurrent layers and classifier stay in float32.
        **encoder_options: The subclass's `own_options`, for `build_encoder`.

    Attributes:
        encoder: `keras.Model` from `(batch, mel_bins, clip_frames, 1)` decibels, or a
            dict of several inputs, to a dict with at least `"maps"`,
            `(batch, mel, time, channels)`.
        embedder: `keras.Model` from maps to the embedding `(batch, gru_units)`.
        dropout, classifier, probabilities: `Dropout`, `Dense` and `CalibratedSoftmax`
            behind it.

    Returns:
        Probabilities, `(batch, num_classes)`, float32.
    """

    # Fields of a `ModelConfig` that a subclass has beside those of all.
    own_options = ()
    # Of the encoder: the last convolution, and what leads on beside it.
    trunk_ends = ("block4",)
    # Whether the classifier carries the penalties of CRNN_FGNL, L2 on its kernel and L1
    # on its logits (0.01 each; Keras divides the latter by the batch size).
    penalized = False

    def __init__(
        self,
        num_classes,
        clip_frames=157,
        mel_bins=128,
        filters=(64, 128, 128, 128),
        gru_units=32,
        block_dropout=0.1,
        head_dropout=0.3,
        temperature=1.0,
        dtype=None,
        name=None,
        trainable=True,
        **encoder_options,
    ):
        if num_classes < 2:
            raise ValueError(
                "Telling singers apart needs at least two. "
                f"Received: num_classes={num_classes}"
            )
        # === Layers ===
        policy = keras.dtype_policies.get(dtype or keras.config.dtype_policy())
        encoder = self.build_encoder(
            (mel_bins, clip_frames, 1),
            filters=filters,
            dropout=block_dropout,
            dtype=policy,
            **encoder_options,
        )
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
            kernel_regularizer=regularizers.L2(0.01) if self.penalized else None,
            activity_regularizer=regularizers.L1(0.01) if self.penalized else None,
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
        super().__init__(inputs=inputs, outputs=outputs, name=name, trainable=trainable)

        # === Config ===
        self.encoder = encoder
        self.embedder = embedder
        self.dropout = dropout
        self.classifier = classifier
        self.probabilities = softmax
        self.num_classes = num_classes
        self.clip_frames = clip_frames
        self.mel_bins = mel_bins
        self.filters = tuple(filters)
        self.gru_units = gru_units
        self.block_dropout = block_dropout
        self.head_dropout = head_dropout
        self.temperature = temperature
        self.encoder_policy = policy
        for option, value in encoder_options.items():
            setattr(self, option, value)

    @classmethod
    def of_config(cls, model, num_classes, shapes, dtype=None):
        """Builds what a `ModelConfig` asks for; `shapes` are a clip's, by stream."""
        mel_bins, clip_frames, _ = next(iter(shapes.values()))
        names = ("filters", "gru_units", "block_dropout", "head_dropout")
        options = {name: getattr(model, name) for name in (*names, *cls.own_options)}
        return cls(num_classes, clip_frames, mel_bins, dtype=dtype, **options)

    # === What training and serving ask of it; see `lca_keras.models.backbone` ===

    @property
    def embedding_size(self):
        """Numbers in the embedding of a clip."""
        return self.gru_units

    @property
    def voiceprint_size(self):
        """Numbers in the voiceprint of a clip."""
        return 2 * self.embedder.input.shape[-1] + self.gru_units

    def encode(self, inputs, training=None):
        """Returns the encoder's outputs."""
        return self.encoder(inputs, training=training)

    def embed(self, maps):
        """Returns embeddings `(batch, gru_units)`."""
        return self.embedder(maps)

    def describe(self, maps):
        """See `ServedBackbone`.

        The voiceprint, `2 channels + gru_units` numbers, is the mean and maximum of
        each map, and the first recurrent layer's mean state. Behind it a network keeps
        what tells the singers it learned, and loses the rest.
        """
        states = maps
        for name in ("time_major", "flatten_mel", "gru1"):
            states = self.embedder.get_layer(name)(states)
        pooled = [ops.mean(maps, axis=(1, 2)), ops.max(maps, axis=(1, 2))]
        pooled = [ops.cast(x, "float32") for x in pooled]
        pooled.append(ops.mean(states, axis=1))
        return {
            "embedding": self.embedder.get_layer("gru2")(states),
            "voiceprint": ops.concatenate(pooled, axis=-1),
        }

    def map_layers(self):
        """The last convolution's maps; see `ServedBackbone`."""
        ends = [self.encoder.get_layer(name).output for name in self.trunk_ends]
        trunk = keras.Model(self.encoder.input, ends)

        def convolved(inputs):
            maps, *beside = keras.tree.flatten(trunk(inputs, training=False))
            return maps, beside

        return {"convolution": (convolved, self.maps_of)}

    def maps_of(self, convolved, beside):
        """The `"maps"` of `encode`, of the `trunk_ends`."""
        return convolved

    def unrolled(self):
        """A copy of the network whose embedder has no loops."""
        copy = self.for_inference(self.temperature)

        def clone(layer):
            config = layer.get_config()
            if isinstance(layer, layers.GRU):
                config["unroll"] = True
            return layer.__class__.from_config(config)

        copy.embedder = keras.models.clone_model(self.embedder, clone_function=clone)
        copy.embedder.set_weights(self.embedder.get_weights())
        return copy

    def for_inference(self, temperature):
        """Returns a float32 copy with the same weights and a softmax temperature."""
        config = {**self.get_config(), "temperature": temperature, "dtype": "float32"}
        copy = type(self).from_config(config)
        copy.set_weights(self.get_weights())
        return copy

    def get_config(self):
        """Returns the constructor's arguments."""
        # Not chained to `keras.Model`: for a graph that is the graph, layer by layer.
        names = ("name", "trainable", "num_classes", "clip_frames", "mel_bins")
        names += ("filters", "gru_units", "block_dropout", "head_dropout")
        names += ("temperature", *self.own_options)
        config = {name: getattr(self, name) for name in names}
        return {**config, "dtype": self.encoder_policy.name}
