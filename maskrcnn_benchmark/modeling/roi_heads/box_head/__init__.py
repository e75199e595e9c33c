"""Classify regions of interest and refine their boxes (Faster R-CNN)."""
