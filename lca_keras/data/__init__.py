"""Songs on disk: listed, tagged, split, extracted, stored, cut into clips.

Imports `features` and the wings below it.
"""
