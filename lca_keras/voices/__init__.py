"""Voiceprints: galleries of singers, strangers, similar voices, who sings when.

Imports `evaluation` and the wings below it.
"""
