"""Heads on whole feature maps: RPN, RetinaNet, FCOS."""
