"""Data sets as arrays: where they come from, how they are normalised and augmented."""
