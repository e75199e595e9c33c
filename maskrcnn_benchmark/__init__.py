"""Detection and segmentation: maskrcnn-benchmark, FCOS and VoVNet, on current PyTorch.

Importing this package imports nothing else. Start from `config.cfg` and `modeling.detector.build_detection_model`. For
a trained model, start from `Predictor`, which is imported when it is first used.
"""

__version__ = "0.2.0"

# Name to module, imported at first use.
_LAZY = {
    "Prediction": "maskrcnn_benchmark.engine.prediction",
    "Predictor": "maskrcnn_benchmark.engine.predictor",
    "sample_image": "maskrcnn_benchmark.data.sample",
}


def __getattr__(name: str):
    if name not in _LAZY:
        raise AttributeError(f"module 'maskrcnn_benchmark' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_LAZY[name]), name)


def __dir__():
    return [*globals(), *_LAZY]
