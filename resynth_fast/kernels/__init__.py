"""Compiled kernels: one module for each, its float64 twins, and the two extension modules."""
