"""Audio in: decoding, mel features, and the synthesis of the built-in corpus."""
