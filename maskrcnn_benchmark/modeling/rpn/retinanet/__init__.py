"""RetinaNet: focal loss for dense object detection (Lin et al., ICCV 2017)."""
