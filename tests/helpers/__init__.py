"""Shared code of the tests: tiny models and data, folders of other formats, golden models, processes."""
