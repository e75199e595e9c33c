"""Build and run every registered part from the unchanged defaults, as maskrcnn-benchmark's own tests do."""

import copy

import pytest
import torch

from maskrcnn_benchmark.config import cfg as defaults
from maskrcnn_benchmark.modeling import registry
from maskrcnn_benchmark.modeling.roi_heads.roi_heads import build_roi_heads  # noqa: F401  (fills the registries)
from maskrcnn_benchmark.structures.bounding_box import BoxList

EXTRACTORS = [
    (kind, name)
    for kind in ("ROI_BOX_FEATURE_EXTRACTORS", "ROI_KEYPOINT_FEATURE_EXTRACTORS", "ROI_MASK_FEATURE_EXTRACTORS")
    for name in getattr(registry, kind)
]


def test_fork_names_are_registered():
    assert set(registry.ROI_BOX_FEATURE_EXTRACTORS) >= {
        "ResNet50Conv5ROIFeatureExtractor",
        "FPN2MLPFeatureExtractor",
        "FPNXconv1fcFeatureExtractor",
    }
    assert set(registry.ROI_BOX_PREDICTOR) >= {"FastRCNNPredictor", "FPNPredictor"}
    assert set(registry.ROI_KEYPOINT_FEATURE_EXTRACTORS) >= {"KeypointRCNNFeatureExtractor"}
    assert set(registry.ROI_KEYPOINT_PREDICTOR) >= {"KeypointRCNNPredictor"}
    assert set(registry.ROI_MASK_FEATURE_EXTRACTORS) >= {
        "ResNet50Conv5ROIFeatureExtractor",
        "MaskRCNNFPNFeatureExtractor",
    }
    assert set(registry.ROI_MASK_PREDICTOR) >= {"MaskRCNNC4Predictor", "MaskRCNNConv1x1Predictor"}


@pytest.mark.parametrize("kind, name", EXTRACTORS)
def test_extractor(kind, name):
    in_channels = 1024 if name.startswith("ResNet50Conv5") else 64
    extractor = getattr(registry, kind)[name](copy.deepcopy(defaults), in_channels)
    boxes = BoxList([[1, 1, 10, 10], [5, 5, 8, 8], [2, 2, 3, 4]], [384, 512], "xyxy")
    out = extractor([torch.rand(2, in_channels, 24, 32)], [boxes, boxes])
    assert out.shape[:2] == (6, extractor.out_channels)


@pytest.mark.parametrize("name", list(registry.ROI_BOX_PREDICTOR))
@pytest.mark.parametrize("shape", [(2, 64, 1, 1), (2, 64), (2, 64, 3, 3)])
def test_box_predictor(name, shape):
    logits, codes = registry.ROI_BOX_PREDICTOR[name](copy.deepcopy(defaults), 64)(torch.rand(shape))
    assert logits.shape == (2, 81) and codes.shape == (2, 324)


def test_class_agnostic_box_predictor():
    cfg = copy.deepcopy(defaults)
    cfg.MODEL.CLS_AGNOSTIC_BBOX_REG = True
    logits, codes = registry.ROI_BOX_PREDICTOR["FPNPredictor"](cfg, 64)(torch.rand(2, 64))
    assert logits.shape == (2, 81) and codes.shape == (2, 8)


def test_box_predictor_requires_num_classes():
    cfg = copy.deepcopy(defaults)
    cfg.MODEL.ROI_BOX_HEAD.NUM_CLASSES = -1
    with pytest.raises(ValueError, match="NUM_CLASSES is -1"):
        registry.ROI_BOX_PREDICTOR["FPNPredictor"](cfg, 64)


@pytest.mark.parametrize(
    "kind, name, classes, side",
    [
        ("ROI_KEYPOINT_PREDICTOR", "KeypointRCNNPredictor", 17, 56),
        ("ROI_MASK_PREDICTOR", "MaskRCNNC4Predictor", 81, 28),
        ("ROI_MASK_PREDICTOR", "MaskRCNNConv1x1Predictor", 81, 14),
    ],
)
def test_map_predictor(kind, name, classes, side):
    out = getattr(registry, kind)[name](copy.deepcopy(defaults), 64)(torch.rand(2, 64, 14, 14))
    assert out.shape == (2, classes, side, side)
