"""Songs: which there are, how they are split, their features on disk."""
