"""Twins: each kernel's function in NumPy and float64. Tests compare with them, and builds without the extension run them."""
