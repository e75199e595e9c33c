"""Semantic segmentation heads and losses."""
