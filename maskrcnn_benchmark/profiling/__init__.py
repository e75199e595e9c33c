"""Measure time, memory, FLOPs and energy of whole models, for `tools/benchmark.py`."""
