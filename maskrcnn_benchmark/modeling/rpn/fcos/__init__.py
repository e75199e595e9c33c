"""FCOS, fully convolutional one-stage detection (Tian et al., ICCV 2019)."""
