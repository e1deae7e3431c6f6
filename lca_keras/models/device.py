"""What the machine computes fast."""

import keras

from lca_keras.base import hardware


def has_gpu():
    """Whether the backend sees a GPU."""
    if keras.backend.backend() != "tensorflow":
        return any("gpu" in name for name in keras.distribution.list_devices())
    import tensorflow as tf

    return bool(tf.config.list_physical_devices("GPU"))


def resolve_precision(precision):
    """Returns the Keras dtype policy for `"auto"`, or `precision` itself.

    bfloat16 halves the time of a step where the processor multiplies it natively
    and slows it down elsewhere.
    """
    if precision != "auto":
        return precision
    fast = has_gpu() or hardware.multiplies_bfloat16()
    return "mixed_bfloat16" if fast else "float32"
