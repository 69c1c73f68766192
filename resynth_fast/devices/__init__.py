"""Devices: where arrays are, and operations on them: the processor, and CUDA memory with or without torch."""
