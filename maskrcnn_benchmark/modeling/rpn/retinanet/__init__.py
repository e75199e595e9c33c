"""RetinaNet, dense object detection with the focal loss (Lin et al., ICCV 2017)."""
