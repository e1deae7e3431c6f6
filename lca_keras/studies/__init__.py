"""Experiments: what is trained, what is counted, what is shown; `subjects` has each.

Imports `workflow` and the wings below it.
"""
