"""The stages of `bench_gpu.py`: one file per group of stages, and the peers, settings and rows that they share."""
