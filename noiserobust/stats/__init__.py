"""Statistics of robustness claims, on NumPy and SciPy alone. Needs no torch."""
