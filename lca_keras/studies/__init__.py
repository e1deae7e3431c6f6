"""Experiments: what is trained, what is counted, what is shown; `subjects` has each.

Imports `terminal`, `workflow` and the wings below them.
"""
