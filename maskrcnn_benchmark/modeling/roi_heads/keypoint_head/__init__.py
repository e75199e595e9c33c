"""Keypoints of every region (Mask R-CNN, section 5)."""
