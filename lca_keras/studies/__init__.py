"""Experiments: what is trained, what is counted, what is shown.

Imports `workflow` and the wings below it.
"""
