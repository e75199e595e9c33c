"""Test all ROI heads together, on unusual batches and configs."""

import copy

import pytest
import torch

from maskrcnn_benchmark.config import cfg as defaults
from maskrcnn_benchmark.modeling import registry
from maskrcnn_benchmark.modeling.roi_heads.roi_heads import build_roi_heads
from maskrcnn_benchmark.structures.bounding_box import BoxList
from maskrcnn_benchmark.structures.keypoint import PersonKeypoints
from maskrcnn_benchmark.structures.segmentation_mask import SegmentationMask

SIZE = (128, 96)
FPN = [
    *("MODEL.ROI_BOX_HEAD.POOLER_SCALES", (0.25, 0.125), "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION", 7),
    *("MODEL.ROI_BOX_HEAD.FEATURE_EXTRACTOR", "FPN2MLPFeatureExtractor", "MODEL.ROI_BOX_HEAD.MLP_HEAD_DIM", 32),
    *("MODEL.ROI_BOX_HEAD.NUM_CLASSES", 4, "MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO", 2),
    *("MODEL.ROI_MASK_HEAD.POOLER_SCALES", (0.25, 0.125), "MODEL.ROI_MASK_HEAD.CONV_LAYERS", (32, 32)),
    *("MODEL.ROI_MASK_HEAD.FEATURE_EXTRACTOR", "MaskRCNNFPNFeatureExtractor", "MODEL.ROI_MASK_HEAD.RESOLUTION", 28),
    *("MODEL.ROI_MASK_HEAD.SHARE_BOX_FEATURE_EXTRACTOR", False, "MODEL.ROI_MASK_HEAD.POOLER_SAMPLING_RATIO", 2),
    *("MODEL.ROI_KEYPOINT_HEAD.POOLER_SCALES", (0.25, 0.125), "MODEL.ROI_KEYPOINT_HEAD.CONV_LAYERS", (32,)),
    *("MODEL.ROI_KEYPOINT_HEAD.RESOLUTION", 56, "MODEL.ROI_KEYPOINT_HEAD.SHARE_BOX_FEATURE_EXTRACTOR", False),
]
XCONV = ["MODEL.ROI_BOX_HEAD.FEATURE_EXTRACTOR", "FPNXconv1fcFeatureExtractor"]
XCONV += ["MODEL.ROI_BOX_HEAD.NUM_STACKED_CONVS", 2, "MODEL.ROI_BOX_HEAD.CONV_HEAD_DIM", 32]
C4 = [
    *("MODEL.ROI_BOX_HEAD.NUM_CLASSES", 4, "MODEL.RESNETS.RES2_OUT_CHANNELS", 8, "MODEL.RESNETS.WIDTH_PER_GROUP", 4),
    *("MODEL.ROI_MASK_HEAD.CONV_LAYERS", (32,)),
]
SCORING = ["MODEL.MASKIOU_ON", True, "MODEL.ROI_MASKIOU_HEAD.CONV_LAYERS", (32, 32)]
ATTENTION = ["MODEL.ROI_MASK_HEAD.FEATURE_EXTRACTOR", "MaskRCNNFPNSpatialAttentionFeatureExtractor"]
BOTH = ["MODEL.MASK_ON", True, "MODEL.KEYPOINT_ON", True]
MODELS = {
    "box": FPN,
    "box, one correction for all classes": [*FPN, "MODEL.CLS_AGNOSTIC_BBOX_REG", True],
    "all": [*FPN, *BOTH],
    "all, GN": [*FPN, *BOTH, "MODEL.ROI_BOX_HEAD.USE_GN", True, "MODEL.ROI_MASK_HEAD.USE_GN", True],
    "mask, Xconv1fc GN, dilation": [
        *(*FPN, *XCONV, "MODEL.MASK_ON", True, "MODEL.ROI_BOX_HEAD.USE_GN", True),
        *("MODEL.ROI_BOX_HEAD.DILATION", 2, "MODEL.ROI_MASK_HEAD.DILATION", 2),
    ],
    "FPN predictor, small masks": [
        *(*FPN, "MODEL.ROI_BOX_HEAD.PREDICTOR", "FPNPredictor", "MODEL.MASK_ON", True),
        *("MODEL.ROI_MASK_HEAD.PREDICTOR", "MaskRCNNConv1x1Predictor", "MODEL.ROI_MASK_HEAD.RESOLUTION", 14),
    ],
    "mask scoring": [*FPN, "MODEL.MASK_ON", True, *SCORING],
    "mask scoring with attention, keypoints": [*FPN, *BOTH, *SCORING, *ATTENTION],
    "C4 with masks": [*C4, "MODEL.MASK_ON", True],
    "cascade": [*FPN, "MODEL.CASCADE_ON", True],
    "cascade with masks": [*FPN, "MODEL.CASCADE_ON", True, "MODEL.MASK_ON", True],
    "cascade on C4 with masks": [*C4, "MODEL.CASCADE_ON", True, "MODEL.MASK_ON", True],
}


def test_every_registered_part_is_tested():
    named = {"FastRCNNPredictor", "ResNet50Conv5ROIFeatureExtractor", "MaskRCNNC4Predictor", "KeypointRCNNPredictor"}
    named |= {"KeypointRCNNFeatureExtractor"}  # by default, with the above
    named |= {word for opts in MODELS.values() for word in opts if isinstance(word, str)}
    for kind in ("BOX", "MASK", "KEYPOINT"):
        parts = {*getattr(registry, f"ROI_{kind}_FEATURE_EXTRACTORS"), *getattr(registry, f"ROI_{kind}_PREDICTOR")}
        assert parts <= named, f"{parts - named}: add a model that uses it"


def build(opts, in_channels=32):
    cfg = copy.deepcopy(defaults)
    cfg.merge_from_list(opts)
    return build_roi_heads(cfg, in_channels)


def maps(images, opts):
    strides = (16,) if opts[: len(C4)] == C4 else (4, 8)
    return [torch.randn(images, 32, SIZE[1] // s, SIZE[0] // s, requires_grad=True) for s in strides]


def truth(boxes):
    boxlist = BoxList(boxes, SIZE)
    boxlist.add_field("labels", torch.ones(len(boxes), dtype=torch.int64))
    polygons = [[[x1, y1, x2, y1, x2, y2, x1, y2]] for x1, y1, x2, y2 in boxes]
    boxlist.add_field("masks", SegmentationMask(polygons, SIZE))
    points = [[[(x1 + x2) / 2, (y1 + y2) / 2, 2.0]] * 17 for x1, y1, x2, y2 in boxes]
    boxlist.add_field("keypoints", PersonKeypoints(torch.tensor(points).reshape(-1, 17, 3), SIZE))
    return boxlist


NO_PROPOSAL = BoxList(torch.zeros(0, 4), SIZE)
FAR = BoxList([[100.0, 70, 120, 90], [90, 80, 110, 95]], SIZE)
A_BOX = [[10.0, 10, 60, 60]]
BATCHES = {
    "objects": ([BoxList([*A_BOX, [12, 10, 60, 66], [0, 0, 5, 5]], SIZE)] * 2, [truth(A_BOX)] * 2),
    "one image without objects": ([FAR, BoxList(A_BOX, SIZE)], [truth([]), truth(A_BOX)]),
    "no objects": ([FAR, FAR], [truth([]), truth([])]),
    "no positive proposal": ([FAR, FAR], [truth(A_BOX), truth(A_BOX)]),
    "no proposal": ([NO_PROPOSAL, NO_PROPOSAL], [truth([]), truth([])]),
    "boxes of a pixel": ([BoxList([[50.0, 50, 50, 50]], SIZE)] * 2, [truth([[50.0, 50, 50, 50]])] * 2),
    "a thousand objects": ([BoxList(A_BOX * 1000, SIZE)] * 2, [truth(A_BOX * 1000), truth(A_BOX)]),
}


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("model", MODELS)
def test_losses_are_finite_and_reach_every_parameter_and_map(model, batch, rng_seed):
    opts = [*MODELS[model], "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", 16]
    heads, features = build(opts).train(), maps(2, opts)
    _, _, losses = heads(features, *BATCHES[batch])
    expected = {"loss_classifier", "loss_box_reg"}
    expected |= {"loss_mask"} if "mask" in heads else set()
    expected |= {"loss_maskiou"} if "maskiou" in heads else set()
    expected |= {"loss_kp"} if "keypoint" in heads else set()
    if "cascade" in model:
        expected = {f"{name}_stage{stage}" for name in expected for stage in range(3)}
    assert set(losses) == expected and all(value.isfinite() for value in losses.values())
    sum(losses.values()).backward()
    for name, tensor in [*heads.named_parameters(), *((f"map {i}", level) for i, level in enumerate(features))]:
        assert tensor.grad is not None and tensor.grad.isfinite().all(), name


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("threshold", [0.0, 0.999])
def test_empty_detections_have_their_fields(model, threshold, rng_seed):
    opts = [*MODELS[model], "MODEL.ROI_HEADS.SCORE_THRESH", threshold]
    heads = build(opts).eval()
    with torch.no_grad():
        _, detections, losses = heads(maps(3, opts), [FAR, NO_PROPOSAL, BoxList(A_BOX, SIZE)])
    assert losses == {}
    for found, is_empty in zip(detections, (threshold > 0, True, threshold > 0), strict=True):
        count = len(found)
        assert (count == 0) == is_empty and found.size == SIZE
        assert found.get_field("scores").shape == (count,) and found.get_field("labels").dtype == torch.int64
        assert found.has_field("mask") == ("mask" in heads) and found.has_field("keypoints") == ("keypoint" in heads)
        assert found.has_field("mask_scores") == ("maskiou" in heads)
        if "maskiou" in heads:
            assert found.get_field("mask_scores").shape == (count,)
        if "mask" in heads:
            side = 14 if "C4" in model or "small" in model else 28
            assert tuple(found.get_field("mask").shape) == (count, 1, side, side)
        if "keypoint" in heads:
            assert found.get_field("keypoints").keypoints.shape == (count, 17, 3)


def test_c4_shares_its_extractor_with_the_mask_branch():
    heads = build(MODELS["C4 with masks"])
    assert heads.mask.feature_extractor is heads.box.feature_extractor


def test_postprocessed_masks_have_the_image_size(rng_seed):
    opts = [*FPN, "MODEL.MASK_ON", True, "MODEL.ROI_MASK_HEAD.POSTPROCESS_MASKS", True]
    opts += ["MODEL.ROI_HEADS.SCORE_THRESH", 0.0]
    with torch.no_grad():
        _, (found,), _ = build(opts).eval()(maps(1, opts), [BoxList(A_BOX, SIZE)])
    assert found.get_field("mask").shape == (len(found), 1, SIZE[1], SIZE[0])


@pytest.mark.parametrize(
    "opts, message",
    [
        ([*FPN, *BOTH, "MODEL.ROI_MASK_HEAD.SHARE_BOX_FEATURE_EXTRACTOR", True], "shares the box head's"),
        (["MODEL.ROI_BOX_HEAD.NUM_CLASSES", -1], "NUM_CLASSES is -1"),
        (["MODEL.CASCADE_ON", True, "MODEL.KEYPOINT_ON", True], "no keypoint head"),
        (["MODEL.CASCADE_ON", True, "MODEL.CASCADE.LOSS_WEIGHTS", (1.0, 1.0)], r"got \[3, 3, 2\] entries"),
    ],
)
def test_invalid_configs_are_refused(opts, message):
    with pytest.raises(ValueError, match=message), torch.device("meta"):
        build(opts)


@pytest.mark.parametrize("key", ["MODEL.RPN_ONLY", "MODEL.RETINANET_ON"])
def test_one_stage_models_have_no_roi_heads(key):
    assert build([key, True]) == []
