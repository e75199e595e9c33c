"""VoVNet, maskrcnn-benchmark, FCOS: detection and segmentation with compiled ops."""

__version__ = "0.1.0"
