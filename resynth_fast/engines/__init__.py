"""Engines in memory: the pool with its budget, dynamic batching, lanes of threads, and the cache of text states."""
