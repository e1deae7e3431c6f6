"""The experiments proper, one a file: what is trained, what is counted, what is shown.

Imports the rest of `studies`, and what that may import.
"""
