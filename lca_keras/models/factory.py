"""Networks and training models from a configuration."""

import keras

from lca_keras.base import hardware, registry
from lca_keras.base.errors import UserError
from lca_keras.models.backbone import missing_members
from lca_keras.models.distribution import has_gpu
from lca_keras.models.lca import LCAModel


def build_network(config, num_classes, dtype=None):
    """Builds the `lca_keras.models.backbone.ServedBackbone` of a `Config`.

    If what was registered is none, that is a `UserError`.
    """
    build = registry.load(config.network.place)
    network = build(config.model, num_classes, config.clip_shapes, dtype)
    missing = missing_members(network, config.network.attention, served=True)
    if missing:
        raise UserError(
            f"the network {config.model.name!r} lacks {', '.join(missing)}; see "
            "lca_keras.models.backbone.ServedBackbone"
        )
    return network


def build_training_model(config, num_classes):
    """Builds the `LCAModel` that `fit` trains, for a `Config`.

    It is compiled, and its optimizer built too, so that checkpoints load.
    """
    train = config.train
    precision = train.precision
    if precision == "auto":
        # bfloat16 halves the time of a step where the processor multiplies it natively,
        # and slows it down elsewhere.
        fast = has_gpu() or hardware.multiplies_bfloat16()
        precision = "mixed_bfloat16" if fast else "float32"
    backbone = build_network(config, num_classes, precision)
    model = LCAModel(
        backbone,
        method=train.method,
        loss_weights=config.loss,
        cf_dropout=train.cf_dropout,
        effect=train.effect,
        detach_counterfactual=train.detach_counterfactual,
        embedding_loss=train.embedding_loss,
        embedding_weight=train.embedding_weight,
        seed=train.seed,
    )
    optimizer = keras.optimizers.Adam(train.learning_rate)
    optimizer.build(model.trainable_variables)
    # XLA does not repeat to the bit.
    jit_compile = has_gpu() and not train.deterministic
    model.compile(optimizer=optimizer, jit_compile=jit_compile)
    return model
