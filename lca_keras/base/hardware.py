"""What the processor can do."""

import platform


def multiplies_bfloat16():
    """Whether the processor has AVX512-BF16 or AMX-BF16 (Linux tells)."""
    if platform.machine() not in ("x86_64", "AMD64"):
        return False
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="ignore") as file:
            flags = next((line for line in file if line.startswith("flags")), "")
    except OSError:
        return False
    return bool({"avx512_bf16", "amx_bf16"} & set(flags.split()))
