"""Numbers that are set between the steps of a training."""

import keras
import numpy as np
from keras import ops


class Setting(keras.metrics.Metric):
    """Numbers that a callback sets and a compiled step reads, without a new trace.

    They are kept as a metric because then they are part of the step's state on every
    backend, and are not counted among the model's weights. A single one is logged.

    Args:
        name: String.
        shape: Tuple, of the numbers; zeros at first.
    """

    def __init__(self, name, shape=()):
        super().__init__(name=name)
        # The same in all replicas; what metrics count is summed over them.
        self.value = self.add_variable(
            shape, "zeros", aggregation="only_first_replica", name="value"
        )

    def update_state(self, value):
        """Sets the numbers."""
        self.value.assign(np.asarray(value, "float32"))

    def reset_state(self):
        """Does nothing: epochs end, the setting stays."""

    def result(self):
        """Returns what is logged."""
        return {} if len(self.value.shape) else ops.convert_to_tensor(self.value)
