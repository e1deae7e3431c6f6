"""What the machine computes fast."""

import platform

import keras


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
