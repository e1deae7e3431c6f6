"""Learnable counterfactual attention: the training model."""

import contextlib
import dataclasses

import keras
import numpy as np
from keras import ops

from lca_keras.base.sections import EFFECTS, EMBEDDING_LOSSES, METHODS, LossWeights
from lca_keras.models import distribution, losses
from lca_keras.models.backbone import missing_members
from lca_keras.models.distribution import has_gpu


class Setting(keras.metrics.Metric):
    """Numbers that a callback sets and a compiled step reads, without a new trace.

    They are kept as a metric because then they are part of the step's state on every
    backend, and are not counted among the model's weights. They begin as zeros; a
    single one is logged.
    """

    def __init__(self, name, shape=()):
        super().__init__(name=name)
        # The same in all replicas; what metrics count is summed over them.
        self.value = self.add_variable(
            shape, "zeros", aggregation="only_first_replica", name="value"
        )

    def update_state(self, value):
        """Sets the numbers."""
        self.value.assign(np.asarray(value, "float32"))

    def reset_state(self):
        """Does nothing: epochs end, the setting stays."""

    def result(self):
        """Returns what is logged."""
        return {} if len(self.value.shape) else ops.convert_to_tensor(self.value)


def _constant(network):
    """A scope in which a network's weights are constants, for gradients.

    Every variable is given anew, since a scope hides the one that it may lie within.
    """
    return keras.StatelessScope(
        state_mapping=[
            (variable, ops.stop_gradient(ops.convert_to_tensor(variable)))
            for variable in network.variables
        ]
    )


@keras.saving.register_keras_serializable(package="lca_keras")
class LCAModel(keras.Model):
    """Trains a network with attention against a counterfactual of its attention.

    A second attention, A~, is applied to the same attended maps as the network's A,
    and both results pass through the same output convolution and head. The loss
    (with y and y~ the two branches' probabilities)

        L = main CE(y, t) + effect CE(softmax(y - y~), t) + cf CE(y~, t)
            - ent_cf H(y~) - att mean|A - A~| - ent_main H(y)

    (with other forms of the effect in place of y - y~ on request)

    draws the counterfactual towards regions that mislead, and the main attention
    away from them. While `gate` is closed (warm-up) only CE(y, t) acts, weight 1.

    Args:
        backbone: `lca_keras.models.CRNNFGNL`, or any other Keras model that is a
            `lca_keras.models.Backbone`.
        method: `"lca"` learns A~ with the backbone's `new_attention`; `"cal"` draws it
            uniformly from [0, 2) and keeps only the `main` and `effect` terms; `"none"`
            trains the backbone alone, which then needs no attention.
        loss_weights: `lca_keras.base.sections.LossWeights` or a dict of its fields. A
            weight of zero switches a term off. The attribute can be set anew at any
            time; a compiled step follows without being traced again.
        cf_dropout: Float, dropout rate before the classifier in the counterfactual
            branch.
        effect: Form of the effect term, `"probability"`, `"logit"` or `"product"`; see
            `lca_keras.models.losses.effect_logits`.
        detach_counterfactual: Whether y~ trains nothing but the attention A~ that it
            comes from. Without, its terms also train the trunk and the head, which
            the two branches share.
        embedding_loss: What shapes the embedding beside the classifier, `"supcon"`,
            `"aam"` or `"none"`; see `lca_keras.models.losses`. It acts in the warm-up
            too. For `"aam"` the classifier has to be a `Dense` layer, and the vectors
            of the artists are the training model's, not the network's.
        embedding_weight: Float.
        temperature: Float, softmax temperature of `main_branch()`.
        seed: Optional int, seed of the counterfactual's dropout and random attention.

    Call arguments:
        inputs: What the backbone takes, usually a float tensor of decibels,
            `(batch, mel_bins, frames, 1)`.

    Returns:
        Dict of float32 tensors: `"logits"` `(batch, classes)` and `"embedding"`, and
        unless `method="none"` also `"cf_logits"`, `"attention"` `(batch, weights)`
        and `"cf_attention"`.

    Raises:
        ValueError: Unknown method, or a network that is no `Backbone`.
    """

    def __init__(
        self,
        backbone,
        method="lca",
        loss_weights=None,
        cf_dropout=0.6,
        effect="probability",
        detach_counterfactual=False,
        embedding_loss="none",
        embedding_weight=1.0,
        temperature=1.0,
        seed=None,
        **kwargs,
    ):
        # Full precision for the arithmetic here; the backbone's layers have the
        # policy that they were built under.
        kwargs.setdefault("dtype", "float32")
        super().__init__(**kwargs)
        for name, value, known in (
            ("method", method, METHODS),
            ("effect", effect, EFFECTS),
            ("embedding_loss", embedding_loss, EMBEDDING_LOSSES),
        ):
            if value not in known:
                raise ValueError(
                    f"`{name}` must be one of {known}. Received: {name}={value!r}"
                )
        missing = missing_members(backbone, with_attention=method != "none")
        if missing:
            raise ValueError(
                f"method={method!r} needs a backbone as `lca_keras.models.Backbone` "
                f"describes it. Received: {type(backbone).__name__} without "
                f"{', '.join(missing)}"
            )
        self.backbone = backbone
        self.method = method
        self.weighing = Setting("weighing", (len(losses.TERMS),))
        self.loss_weights = loss_weights or LossWeights()
        self.cf_dropout = cf_dropout
        self.effect = effect
        self.detach_counterfactual = detach_counterfactual
        self.embedding_loss = embedding_loss
        self.embedding_weight = embedding_weight
        self.temperature = float(temperature)
        self.seed = seed
        self.gate = Setting("gate")
        if keras.backend.backend() == "tensorflow":  # Elsewhere Keras has its own.
            self.loss_tracker = keras.metrics.Mean(name="loss")
        self.f1 = self._f1_metric("f1")
        if method != "none":
            self.cf_f1 = self._f1_metric("cf_f1")
            self.cf_head_dropout = keras.layers.Dropout(
                cf_dropout, seed=seed, dtype="float32", name="cf_head_dropout"
            )
            self.term_trackers = {
                term: keras.metrics.Mean(name=f"{term}_term") for term in losses.TERMS
            }
        if method == "cal":
            self.random_attention = keras.random.SeedGenerator(seed)
        if method == "lca":
            self.cf_attention = backbone.new_attention("cf_attention")
        if embedding_loss != "none":
            self.embedding_tracker = keras.metrics.Mean(name="embedding_term")
        if embedding_loss == "aam":
            self.artist_vectors = self.add_weight(
                shape=backbone.classifier.kernel.shape,
                initializer=keras.initializers.GlorotUniform(seed),
                name="artist_vectors",
            )
        self.built = True  # All its layers are.

    @property
    def loss_weights(self):
        """`LossWeights` of the terms."""
        return self._loss_weights

    @loss_weights.setter
    def loss_weights(self, value):
        self._loss_weights = LossWeights(**value) if isinstance(value, dict) else value
        self.weighing.update_state(
            [getattr(self._loss_weights, term) for term in losses.TERMS]
        )

    def _f1_metric(self, name):
        metric = keras.metrics.F1Score(average="weighted", name=name)
        # Its variables come with the first use, too late inside of a replica.
        nothing = ops.zeros((1, self.backbone.num_classes))
        metric.update_state(nothing, nothing)
        metric.reset_state()
        return metric

    def compile(self, optimizer="auto", jit_compile=None, **kwargs):
        """As `keras.Model.compile`; the loss is the model's own.

        The default optimizer is Adam with the papers' rate, 1e-4. By default XLA
        compiles the step on a GPU; on a CPU that would take five times as long.
        """
        if optimizer == "auto":
            optimizer = keras.optimizers.Adam(1e-4)
        if jit_compile is None:
            jit_compile = has_gpu()
        super().compile(optimizer=optimizer, jit_compile=jit_compile, **kwargs)

    def compile_from_config(self, config):
        """Compiles a loaded model; Keras leaves out models with their own `compile`."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        self.optimizer.build(self.trainable_variables)

    def call(self, inputs, training=None):
        """Runs both branches; see the class."""
        network = self.backbone
        encoded = network.encode(inputs, training=training)
        if self.method == "none":
            embedding = network.embed(encoded["maps"])
            hidden = network.dropout(embedding, training=training)
            return {"logits": network.classifier(hidden), "embedding": embedding}

        features, maps = encoded["features"], encoded["maps"]
        attended, attention = encoded["attended"], encoded["attention"]
        if self.detach_counterfactual:
            features = ops.stop_gradient(features)
            attended = ops.stop_gradient(attended)
        if self.method == "lca":
            cf_attention = self.cf_attention(attended)
        else:
            cf_attention = keras.random.uniform(
                ops.shape(attention), 0.0, 2.0, seed=self.random_attention
            )
        if self.detach_counterfactual:
            embedding = network.embed(maps)
            with _constant(network):
                cf_maps = network.fuse(features, attended, cf_attention)
                cf_embedding = network.embed(cf_maps)
        else:
            cf_maps = network.fuse(features, attended, cf_attention)
            # One pass over both: a recurrence costs by its steps, not its rows.
            both = network.embed(ops.concatenate([maps, cf_maps], axis=0))
            embedding, cf_embedding = ops.split(both, 2, axis=0)
        hidden = network.dropout(embedding, training=training)
        cf_hidden = self.cf_head_dropout(cf_embedding, training=training)
        scope = _constant if self.detach_counterfactual else contextlib.nullcontext
        with scope(network):
            # `call` shares the weights without a second activity penalty, so that
            # warm-up trains exactly what `method="none"` trains.
            cf_logits = network.classifier.call(cf_hidden)
        return {
            "logits": network.classifier(hidden),
            "embedding": embedding,
            "cf_logits": cf_logits,
            "attention": attention,
            "cf_attention": cf_attention,
        }

    def compute_loss(
        self, x=None, y=None, y_pred=None, sample_weight=None, training=True
    ):
        """The loss of a batch, penalties included; `x` and `training` are ignored."""
        return self._loss(y, y_pred, sample_weight, self.losses)

    def _loss(self, y, y_pred, sample_weight, penalties):
        """The loss with these penalties; the terms are logged."""
        terms = self.loss_terms(y, y_pred, sample_weight)
        if self.method != "none":
            share = distribution.share(sample_weight)
            for name, value in terms.items():
                self.term_trackers[name].update_state(value, share)
        loss = self.weigh(terms)
        if self.embedding_loss != "none":
            embedding = y_pred["embedding"]
            if self.embedding_loss == "supcon":
                values = losses.supervised_contrastive(y, embedding)
            else:
                vectors = self.artist_vectors
                values = losses.additive_angular_margin(y, embedding, vectors)
            term = distribution.mean(values, sample_weight)
            share = distribution.share(sample_weight)
            self.embedding_tracker.update_state(term, share)
            loss += self.embedding_weight * term
        return loss + sum(ops.cast(penalty, loss.dtype) for penalty in penalties)

    def loss_terms(self, y, y_pred, sample_weight=None):
        """The terms of the loss, each a mean over examples, without weights.

        Args:
            y: Int tensor, `(batch,)`, artists.
            y_pred: What `call` returned.
            sample_weight: Optional float tensor, `(batch,)`.

        Returns:
            Dict from name to scalar; `"main"` alone for `method="none"`.
        """
        if self.method == "none":
            values = losses.cross_entropy(y, y_pred["logits"])
            return {"main": distribution.mean(values, sample_weight)}
        names = ("logits", "cf_logits", "attention", "cf_attention")
        told = [y_pred[name] for name in names]
        terms = losses.counterfactual_terms(y, *told, self.effect)
        return {
            name: distribution.mean(values, sample_weight)
            for name, values in terms.items()
        }

    def weigh(self, terms):
        """The loss without penalties: the weighted terms, or `main` in the warm-up."""
        if self.method == "none":
            return terms["main"]
        weights = ops.convert_to_tensor(self.weighing.value)
        total = sum(
            losses.SIGNS[name] * weights[losses.TERMS.index(name)] * terms[name]
            for name in self.active_weights()
        )
        opened = ops.cast(self.gate.value, total.dtype)
        return opened * total + (1.0 - opened) * terms["main"]

    def active_weights(self):
        """Returns the weights of the terms that the method uses, by name."""
        weights = dataclasses.asdict(self.loss_weights)
        used = {"none": ("main",), "cal": ("main", "effect"), "lca": losses.TERMS}
        return {name: weights[name] for name in used[self.method]}

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        """Updates and returns the metrics; both branches' F1 among them."""
        target = ops.one_hot(y, self.backbone.num_classes)
        # Classes weigh in the loss; in the scores all clips are equal.
        present = None
        if sample_weight is not None:
            present = distribution.present(sample_weight)
        self.f1.update_state(target, y_pred["logits"], present)
        if self.method != "none":
            self.cf_f1.update_state(target, y_pred["cf_logits"], present)
        return self.get_metrics_result()

    if keras.backend.backend() == "tensorflow":

        def train_step(self, data):
            """One step of gradient descent on `compute_loss`."""
            import tensorflow as tf

            x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
            with tf.GradientTape() as tape:
                y_pred = self(x, training=True)
                # Replicas of one process share the layers, and these what they have
                # added: taken before another replica has its turn.
                penalties = list(self.losses)
                self._clear_losses()
                loss = self._loss(y, y_pred, sample_weight, penalties)
                # Replicas' gradients are summed, the loss is a mean of this one's.
                share = distribution.share(sample_weight)
                scaled = self.optimizer.scale_loss(loss * share)
            weights = self.trainable_weights
            self.optimizer.apply_gradients(
                zip(tape.gradient(scaled, weights), weights, strict=True)
            )
            self.loss_tracker.update_state(loss, share)
            return self.compute_metrics(x, y, y_pred, sample_weight)

        def test_step(self, data):
            """Loss and metrics of a batch."""
            x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
            y_pred = self(x, training=False)
            self.loss_tracker.update_state(
                self.compute_loss(x, y, y_pred, sample_weight, training=False)
            )
            return self.compute_metrics(x, y, y_pred, sample_weight)

    def main_branch(self):
        """Returns the plain inference model, without the counterfactual branch.

        It is a copy of the backbone with the trained weights and the temperature, in
        float32 whatever precision it was trained in.
        """
        return self.backbone.for_inference(self.temperature)

    def get_config(self):
        """Returns the constructor's arguments."""
        names = ("method", "cf_dropout", "effect", "detach_counterfactual", "seed")
        names += ("embedding_loss", "embedding_weight", "temperature")
        return {
            **super().get_config(),
            **{name: getattr(self, name) for name in names},
            "backbone": keras.saving.serialize_keras_object(self.backbone),
            "loss_weights": dataclasses.asdict(self.loss_weights),
        }

    @classmethod
    def from_config(cls, config):
        """Builds the model from `get_config`'s form."""
        backbone = keras.saving.deserialize_keras_object(config["backbone"])
        return cls(**{**config, "backbone": backbone})
