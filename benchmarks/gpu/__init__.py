"""What `bench_gpu.py` measures: a file for each group of stages, and the peers, settings and rows that they share."""
