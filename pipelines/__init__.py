"""Apache Beam pipelines for corpora of any size."""
