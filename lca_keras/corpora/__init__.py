"""Corpora: made, and examined before anybody trains on them.

Imports `data` and the wings below it.
"""
