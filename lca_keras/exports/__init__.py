"""Exports: SavedModel, TFLite, model card, versions, integrity.

Imports `voices` and the wings below it.
"""
