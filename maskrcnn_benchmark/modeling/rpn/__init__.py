"""Heads that look at whole feature maps: RPN, RetinaNet, FCOS."""
