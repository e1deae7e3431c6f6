"""Singer identification with learnable counterfactual attention.

Nothing heavy is imported here; `lca_keras.models`, `lca_keras.layers` and the other
modules load what they need.
"""

import os

# TensorFlow's quick kernels (oneDNN), which it leaves out by default on processors
# without instructions for neural networks (AVX512_VNNI, AMX): a training step there
# takes 2.2 times as long. Read once, when TensorFlow loads; what the user set stays.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

__version__ = "0.1.0"
