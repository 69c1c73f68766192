"""The exporter, run ahead of time: converts checkpoints of torch, diffusers and transformers to bundles for the torch-free runtime."""
