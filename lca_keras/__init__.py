"""Singer identification with learnable counterfactual attention.

    from lca_keras import Run
    run = Run.create("runs/mine", data="MUSIC", preset="demo")
    result = run.complete()  # Goes on where it stopped; result.export, result.scores

Nothing heavy is imported here; `Run`, `Identifier` and the modules load what they need.
"""

import importlib
import os

# TensorFlow's quick kernels (oneDNN), which it leaves out by default on processors
# without instructions for neural networks (AVX512_VNNI, AMX): a training step there
# takes 2.2 times as long. Read once, when TensorFlow loads; what the user set stays.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

__all__ = ["Identifier", "Run"]
__version__ = "0.1.0"

_PLACES = {
    "Identifier": "lca_keras.inference.identification",
    "Run": "lca_keras.workflow.run",
}


def __getattr__(name):
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_PLACES[name]), name)
