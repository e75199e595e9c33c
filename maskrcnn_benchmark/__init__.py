"""Detection and segmentation: maskrcnn-benchmark, FCOS and VoVNet, on today's PyTorch.

Importing this package imports nothing else: start from `config.cfg` and `modeling.detector.build_detection_model`.
"""

__version__ = "0.2.0"
