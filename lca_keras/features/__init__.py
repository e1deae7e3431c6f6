"""Front ends: from the samples of a clip to what a network hears.

Each computation in NumPy and in a graph, side by side.

Imports `audio` and `base`.
"""
