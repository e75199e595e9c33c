"""Find what is wrong with a dataset, and with its fit to a config (tools/check_dataset.py, docs/data.md)."""
