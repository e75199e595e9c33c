"""Class and box of every region (Faster R-CNN)."""
