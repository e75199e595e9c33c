"""MaskIoU head of Mask Scoring R-CNN and CenterMask."""
