"""Data structures: boxes with their fields, masks, keypoints, semantic maps, and batches of images."""
