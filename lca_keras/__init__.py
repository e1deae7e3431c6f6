"""Singer identification with learnable counterfactual attention.

Nothing heavy is imported here; `lca_keras.models`, `lca_keras.layers` and the other
modules load what they need.
"""

__version__ = "0.1.0"
