"""Making and examining corpora: synthesis, planted cues, the doctor, separators."""
