"""Measuring whole models: what `tools/benchmark.py` does."""
