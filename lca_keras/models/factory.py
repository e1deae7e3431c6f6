"""Networks and training models from a configuration."""

import keras

from lca_keras.models.crnn import CRNN
from lca_keras.models.crnn_fgnl import CRNNFGNL
from lca_keras.models.crnnm import CRNNM
from lca_keras.models.device import has_gpu, resolve_precision
from lca_keras.models.lca import LCAModel

_NETWORKS = {"crnn": CRNN, "crnnm": CRNNM, "crnn_fgnl": CRNNFGNL}


def build_network(model_config, num_classes, clip_frames, mel_bins=128, dtype=None):
    """Builds the network that a `ModelConfig` names.

    Args:
        model_config: `lca_keras.base.config.ModelConfig`.
        num_classes: Int, number of artists.
        clip_frames: Int, frames of a clip.
        mel_bins: Int, mel bands.
        dtype: Dtype policy; default is Keras's global one.

    Returns:
        `CRNN`, `CRNNM` or `CRNNFGNL`.
    """
    shared = {
        "num_classes": num_classes,
        "clip_frames": clip_frames,
        "mel_bins": mel_bins,
        "filters": model_config.filters,
        "gru_units": model_config.gru_units,
        "block_dropout": model_config.block_dropout,
        "head_dropout": model_config.head_dropout,
        "dtype": dtype,
    }
    if model_config.name == "crnn_fgnl":
        shared["reduction"] = model_config.reduction
        shared["normalize"] = model_config.normalize
    return _NETWORKS[model_config.name](**shared)


def build_training_model(config, num_classes):
    """Builds and compiles the model that `fit` trains.

    Args:
        config: `lca_keras.base.config.Config`.
        num_classes: Int, number of artists.

    Returns:
        Compiled `LCAModel`, its optimizer built too, so that checkpoints load.
    """
    train = config.train
    backbone = build_network(
        config.model,
        num_classes,
        config.clip_frames,
        config.features.mel_bins,
        resolve_precision(train.precision),
    )
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
