"""FCOS in RPN's place, and mask scoring in other detectors: each combination trains and detects, or is refused."""

import copy

import pytest
import torch
from helpers.tiny_models import MODELS, tiny_cfg

from maskrcnn_benchmark.config import cfg as defaults
from maskrcnn_benchmark.config import check_values
from maskrcnn_benchmark.modeling.detector import build_detection_model
from maskrcnn_benchmark.modeling.detector.strides import check_strides
from maskrcnn_benchmark.modeling.rpn.dense_detector import DenseDetector
from maskrcnn_benchmark.structures.bounding_box import BoxList
from maskrcnn_benchmark.structures.keypoint import PersonKeypoints
from maskrcnn_benchmark.structures.segmentation_mask import SegmentationMask
from maskrcnn_benchmark.structures.semantic_map import SemanticMap

SIZE = (96, 64)
FINEST = "[0.125,0.0625,0.03125]"
ON_FCOS = (
    "MODEL.FCOS_ON True MODEL.FCOS.NUM_CLASSES 3 MODEL.FCOS.NUM_CONVS 1 MODEL.BACKBONE.CONV_BODY V-27-FPN-RETINANET "
    f"MODEL.ROI_BOX_HEAD.POOLER_SCALES {FINEST} MODEL.ROI_MASK_HEAD.POOLER_SCALES {FINEST} "
    f"MODEL.ROI_KEYPOINT_HEAD.POOLER_SCALES {FINEST} "
)
SCORING = "MODEL.MASKIOU_ON True MODEL.ROI_MASKIOU_HEAD.CONV_LAYERS [32] "
ONE_CLASS = "MODEL.FCOS.NUM_CLASSES 2 MODEL.ROI_BOX_HEAD.NUM_CLASSES 2 "
# name -> (tiny model, options)
COMBINATIONS = {
    "Faster R-CNN": ("faster", ON_FCOS),
    "Mask R-CNN": ("mask", ON_FCOS),
    "Mask Scoring R-CNN": ("mask", ON_FCOS + SCORING),
    "keypoints": ("keypoint", ON_FCOS),
    "masks, their scores and keypoints": ("mask and keypoint", ON_FCOS + SCORING),
    "Cascade Mask R-CNN": ("cascade mask", ON_FCOS),
    "class-agnostic boxes": ("mask", ON_FCOS + SCORING + "MODEL.CLS_AGNOSTIC_BBOX_REG True"),
    "one class": ("mask", ON_FCOS + SCORING + ONE_CLASS),
    "CenterMask's numbers": ("mask", ON_FCOS + SCORING + "MODEL.CONVENTION centermask"),
    "CenterMask2's numbers": ("mask", ON_FCOS + SCORING + "MODEL.CONVENTION centermask2"),
    "mmdetection's numbers": ("mask", ON_FCOS + SCORING + "MODEL.CONVENTION mmdetection"),
    "Panoptic FPN": ("panoptic", ON_FCOS + "MODEL.BACKBONE.CONV_BODY V-27-FPN-P2P7"),
    "Panoptic FPN with mask scores on RPN": ("panoptic", SCORING),
    "Panoptic CenterMask with keypoints": (
        "panoptic centermask",
        "MODEL.KEYPOINT_ON True MODEL.ROI_KEYPOINT_HEAD.CONV_LAYERS [32] MODEL.ROI_KEYPOINT_HEAD.RESOLUTION 56 "
        f"MODEL.ROI_KEYPOINT_HEAD.POOLER_SCALES {FINEST} MODEL.ROI_KEYPOINT_HEAD.SHARE_BOX_FEATURE_EXTRACTOR False",
    ),
    "CenterMask of one class": ("centermask", ONE_CLASS),
}


def truth(boxes, box_offset):
    target = BoxList(boxes, SIZE, box_offset=box_offset)
    target.add_field("labels", torch.ones(len(boxes), dtype=torch.int64))
    target.add_field("masks", SegmentationMask([[[x1, y1, x2, y1, x2, y2, x1, y2]] for x1, y1, x2, y2 in boxes], SIZE))
    points = [[[(x1 + x2) / 2, (y1 + y2) / 2, 2.0]] * 17 for x1, y1, x2, y2 in boxes]
    target.add_field("keypoints", PersonKeypoints(torch.tensor(points).reshape(-1, 17, 3), SIZE))
    target.add_field("semantic", SemanticMap(torch.zeros(SIZE[1], SIZE[0], dtype=torch.uint8)))
    return target


@pytest.mark.parametrize("name", COMBINATIONS)
def test_the_combination_trains_also_on_images_without_objects_and_detects(name, rng_seed):
    base, options = COMBINATIONS[name]
    cfg = tiny_cfg(base, *options.split())
    check_values(cfg, is_train=True)
    model = build_detection_model(cfg)
    check_strides(cfg, model)
    heads = model.roi_heads
    if cfg.MODEL.FCOS_ON:
        assert isinstance(model.rpn, DenseDetector)
        torch.nn.init.zeros_(model.rpn.head.cls_logits.bias)  # a fresh head proposes nothing
    box_offset = 0 if "2" in cfg.MODEL.CONVENTION else 1
    objects = [[10.0, 10, 60, 50], [40, 5, 90, 60]]
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    before = copy.deepcopy(model.state_dict())
    for batch in ([objects, []], [[], []]):
        images = [torch.randn(3, SIZE[1], SIZE[0]) for _ in batch]
        losses = model.train()(images, [truth(boxes, box_offset) for boxes in batch])
        assert any(loss.startswith("loss_centerness") for loss in losses) == cfg.MODEL.FCOS_ON
        optimizer.zero_grad()
        sum(losses.values()).backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
        optimizer.step()
    assert all(value.isfinite().all() for value in model.state_dict().values() if value.is_floating_point())
    assert any(not torch.equal(value, before[key]) for key, value in model.state_dict().items() if "roi_heads" in key)
    with torch.no_grad():
        found = model.eval()([torch.randn(3, SIZE[1], SIZE[0]), torch.zeros(3, SIZE[1], SIZE[0])])
    for boxes in found:
        assert (boxes.bbox >= 0).all() and (boxes.bbox <= torch.tensor([*SIZE, *SIZE])).all()
        assert boxes.has_field("mask_scores") == ("maskiou" in heads)
        assert boxes.has_field("keypoints") == ("keypoint" in heads)
        assert boxes.has_field("mask") == cfg.MODEL.MASK_ON


REFUSED = [
    ("cascade mask", ON_FCOS + SCORING, "a cascade's masks are not scored"),
    ("keypoint", ON_FCOS + "MODEL.CASCADE_ON True", "a cascade has no keypoint head"),
    ("mask", ON_FCOS + "MODEL.RETINANET_ON True", "a model has one dense head"),
    ("retinanet", "MODEL.FCOS_MASK True", "the detections are FCOS's"),
    ("retinanet", "MODEL.MASKIOU_ON True", "there is no mask to score"),
    ("retinanet", SCORING + "MODEL.MASK_ON True", "a dense detector has no second stage"),
    ("centermask", "MODEL.CASCADE_ON True MODEL.MASKIOU_ON False", "CenterMask has no box heads"),
    ("mask", SCORING + "MODEL.ROI_MASK_HEAD.SHARE_BOX_FEATURE_EXTRACTOR True", "no pooled features of its own"),
    ("centermask", "MODEL.ROI_MASKIOU_HEAD.CONV_LAYERS []", "one or more entries"),
]


@pytest.mark.parametrize("base, options, message", REFUSED)
def test_a_combination_without_meaning_is_refused_with_its_reason(base, options, message):
    cfg = copy.deepcopy(defaults)
    cfg.merge_from_list([*MODELS[base].split(), *options.split()])
    with pytest.raises(ValueError, match=message):
        check_values(cfg, is_train=True)


def test_fcos_on_maps_of_other_strides_is_refused():
    cfg = tiny_cfg("mask", *ON_FCOS.split(), "MODEL.BACKBONE.CONV_BODY", "V-27-FPN")
    with pytest.raises(ValueError, match=r"FPN_STRIDES is \[8, 16, 32, 64, 128\], but the maps"):
        check_strides(cfg, build_detection_model(cfg))
