"""What every wing stands on: configuration, errors, files, screen, processes.

Imports nothing of the house, and nothing heavy.
"""
