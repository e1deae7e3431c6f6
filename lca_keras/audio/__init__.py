"""Samples: decoding, mel features, melody, separation, fingerprints."""
