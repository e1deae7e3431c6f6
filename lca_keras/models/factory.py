"""Networks and training models from a configuration."""

import platform

import keras

from lca_keras.models.crnn import CRNN
from lca_keras.models.crnn_fgnl import CRNNFGNL
from lca_keras.models.crnnm import CRNNM
from lca_keras.models.lca import LCAModel


def build_network(model_config, num_classes, clip_frames, mel_bins=128, dtype=None):
    """Builds the network that a `ModelConfig` names.

    Args:
        model_config: `lca_keras.config.ModelConfig`.
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
    if model_config.name in ("crnn", "crnnm"):
        return {"crnn": CRNN, "crnnm": CRNNM}[model_config.name](**shared)
    return CRNNFGNL(
        **shared,
        reduction=model_config.reduction,
        normalize=model_config.normalize,
    )


def build_training_model(config, num_classes):
    """Builds and compiles the model that `fit` trains.

    Args:
        config: `lca_keras.config.Config`.
        num_classes: Int, number of artists.

    Returns:
        Compiled `LCAModel`, its optimizer built too, so that checkpoints load.
    """
    train = config.train
    backbone = build_network(
        config.model,
        num_classes,
        train.clip_frames,
        config.features.mel_bins,
        resolve_precision(train.precision),
    )
    model = LCAModel(
        backbone,
        method=train.method,
        loss_weights=config.loss,
        cf_dropout=train.cf_dropout,
        seed=train.seed,
    )
    model.build()
    optimizer = keras.optimizers.Adam(train.learning_rate)
    optimizer.build(model.trainable_variables)
    # XLA makes a step on a CPU five times slower, and does not repeat to the bit.
    jit_compile = has_gpu() and not train.deterministic
    model.compile(optimizer=optimizer, jit_compile=jit_compile)
    return model


def has_gpu():
    """Whether TensorFlow sees a GPU."""
    import tensorflow as tf

    return bool(tf.config.list_physical_devices("GPU"))


def resolve_precision(precision):
    """Returns the Keras dtype policy for `"auto"`, or `precision` itself.

    bfloat16 halves the time of a step where the processor multiplies it natively
    and slows it down elsewhere.
    """
    if precision != "auto":
        return precision
    return "mixed_bfloat16" if has_gpu() or _cpu_has_bfloat16() else "float32"


def _cpu_has_bfloat16():
    """Whether the CPU has AVX512-BF16 or AMX-BF16 (Linux tells)."""
    if platform.machine() not in ("x86_64", "AMD64"):
        return False
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="ignore") as file:
            flags = next((line for line in file if line.startswith("flags")), "")
    except OSError:
        return False
    return bool({"avx512_bf16", "amx_bf16"} & set(flags.split()))
