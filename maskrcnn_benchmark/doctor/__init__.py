"""Find problems of a dataset, and mismatches between dataset and config (tools/check_dataset.py, docs/data.md)."""
