"""Predict masks of regions of interest (Mask R-CNN)."""
