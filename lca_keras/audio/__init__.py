"""Samples of songs: decoded, separated, told apart by their fingerprint.

Imports `base`.
"""
