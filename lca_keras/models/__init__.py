"""Networks, and the model that trains them against a counterfactual.

Imports `layers` and `base`; of use alone to whoever trains in a loop of their own.
"""

from lca_keras.models.backbone import Backbone
from lca_keras.models.crnn import CRNN, CRNNFGNL, CRNNM
from lca_keras.models.lca import LCAModel

__all__ = ["CRNN", "CRNNFGNL", "CRNNM", "Backbone", "LCAModel"]
