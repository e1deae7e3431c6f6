"""Decisions about clips and songs, their scores, and what a model listens to.

Imports `models`, `data` and the wings below them.
"""
