"""A mask for every region (Mask R-CNN)."""
