"""Predict keypoints of regions of interest (Mask R-CNN, section 5)."""
