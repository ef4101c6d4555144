"""Benchmarks of tffl's own speed and memory: `tffl bench`."""
