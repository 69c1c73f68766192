"""Ahead of time: checkpoints of torch, diffusers and transformers become bundles for the torch-free runtime."""
