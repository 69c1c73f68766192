"""Twins: what each kernel computes, in NumPy and float64. Tests compare with them, and builds without the extension run them."""
