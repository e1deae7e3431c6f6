"""Exported models at work: the `Identifier`, and the runtimes that compute.

Imports `exports` and the wings below it.
"""
