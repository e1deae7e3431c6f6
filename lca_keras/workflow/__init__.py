"""A run folder and its way: prepare, train, calibrate, evaluate, gallery, export.

Imports every wing but `studies` and `terminal`.
"""
