"""Beam pipelines for corpora of any size, and the stages up to a pushed model."""
