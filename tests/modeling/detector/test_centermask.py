"""Test CenterMask on unusual batches, its variants, and its parts in other detectors."""

import copy
from pathlib import Path

import pytest
import torch

from maskrcnn_benchmark.config import cfg as defaults
from maskrcnn_benchmark.config.checks import check_values
from maskrcnn_benchmark.engine.bbox_aug import make_bbox_aug
from maskrcnn_benchmark.fast.for_inference import for_inference
from maskrcnn_benchmark.modeling.detector import build_detection_model
from maskrcnn_benchmark.modeling.detector.strides import check_strides
from maskrcnn_benchmark.structures.bounding_box import BoxList
from maskrcnn_benchmark.structures.keypoint import PersonKeypoints
from maskrcnn_benchmark.structures.segmentation_mask import SegmentationMask

CONFIGS = Path(__file__).parents[3] / "configs"
SIZE = (96, 64)
SMALL = [
    *("MODEL.DEVICE", "cpu", "DTYPE", "float32", "MODEL.FCOS.NUM_CLASSES", 4, "MODEL.ROI_BOX_HEAD.NUM_CLASSES", 4),
    *("MODEL.VOVNET.STEM_CHANNELS", (8, 8, 16), "MODEL.VOVNET.STAGE_CONV_CHANNELS", (8, 8, 8, 8)),
    *("MODEL.VOVNET.STAGE_OUT_CHANNELS", (16, 16, 16, 16), "MODEL.VOVNET.BACKBONE_OUT_CHANNELS", 64),
    *("MODEL.FCOS.NUM_CONVS", 1, "MODEL.ROI_MASK_HEAD.CONV_LAYERS", (32, 64)),
    *("MODEL.ROI_MASKIOU_HEAD.CONV_LAYERS", (16, 16), "MODEL.ROI_KEYPOINT_HEAD.CONV_LAYERS", (16,)),
    *("MODEL.ROI_BOX_HEAD.MLP_HEAD_DIM", 32, "TEST.DETECTIONS_PER_IMG", 7, "MODEL.FCOS.INFERENCE_TH", 0.001),
]
LITE = "quick/centermask_digits.yaml"
V1 = ["MODEL.CONVENTION", "centermask", "MODEL.FCOS.NORM_REG_TARGETS", False]
DEFORMABLE = ["MODEL.VOVNET.STAGE_WITH_DCN", (False, True, True, True), "MODEL.VOVNET.WITH_MODULATED_DCN", True]
KEYPOINTS = ["MODEL.KEYPOINT_ON", True]
# FCOS in RPN's place, before heads of Mask R-CNN that score their masks
TWO_STAGES = [
    *("MODEL.FCOS_MASK", False, "MODEL.RPN_ONLY", False, "MODEL.ROI_BOX_HEAD.FEATURE_EXTRACTOR"),
    *("FPN2MLPFeatureExtractor", "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION", 7),
    *("MODEL.ROI_BOX_HEAD.POOLER_SCALES", (0.125, 0.0625, 0.03125), "MODEL.ROI_BOX_HEAD.PREDICTOR", "FPNPredictor"),
    *("MODEL.ROI_HEADS.SCORE_THRESH", 0.0, "MODEL.ROI_HEADS.DETECTIONS_PER_IMG", 7),
]
VARIANTS = {
    "CenterMask2": [],
    "CenterMask": V1,
    "without MaskIoU": ["MODEL.MASKIOU_ON", False],
    "deformable": DEFORMABLE,
    "keypoints": KEYPOINTS,
    "keypoints without masks": [*KEYPOINTS, "MODEL.MASK_ON", False, "MODEL.MASKIOU_ON", False],
    "Faster R-CNN on FCOS": [*TWO_STAGES, "MODEL.MASK_ON", False, "MODEL.MASKIOU_ON", False],
    "Mask Scoring R-CNN on FCOS": TWO_STAGES,
}


def make(opts=(), config=LITE):
    cfg = copy.deepcopy(defaults)
    cfg.merge_from_file(CONFIGS / config)
    cfg.merge_from_list([*SMALL, *opts])
    check_values(cfg, is_train=True)
    torch.manual_seed(0)
    model = build_detection_model(cfg)
    check_strides(cfg, model)
    # Fresh distances are about 0; these make boxes of some strides.
    torch.nn.init.constant_(model.rpn.head.bbox_pred.bias, 2.0)
    return cfg, model


def truth(boxes, mode="poly", size=SIZE):
    target = BoxList(boxes, size, box_offset=0)
    target.add_field("labels", torch.arange(len(boxes)) % 3 + 1)
    masks = SegmentationMask([[[x1, y1, x2, y1, x2, y2, x1, y2]] for x1, y1, x2, y2 in boxes], size)
    target.add_field("masks", masks.convert(mode))
    points = [[[(x1 + x2) / 2, (y1 + y2) / 2, 2.0]] * 17 for x1, y1, x2, y2 in boxes]
    target.add_field("keypoints", PersonKeypoints(torch.tensor(points).reshape(-1, 17, 3), size))
    return target


def images(count=2):
    return [torch.randn(3, SIZE[1], SIZE[0]) for _ in range(count)]


OBJECTS = [[10.0, 10, 60, 50], [40, 5, 90, 60]]
BATCHES = {
    "objects": [OBJECTS, OBJECTS[:1]],
    "one image without objects": [[], OBJECTS],
    "no objects": [[], []],
    "objects of less than a pixel": [[[20.0, 20, 20.5, 20.5]], [[5.0, 5, 5, 5]]],
}


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_losses_are_finite_and_reach_every_parameter(variant, batch, rng_seed):
    _, model = make(VARIANTS[variant])
    losses = model.train()(images(), [truth(boxes) for boxes in BATCHES[batch]])
    expected = {"loss_cls", "loss_reg", "loss_centerness"}
    expected |= {"loss_mask"} if "mask" in model.roi_heads else set()
    expected |= {"loss_maskiou"} if "maskiou" in model.roi_heads else set()
    expected |= {"loss_kp"} if "keypoint" in model.roi_heads else set()
    expected |= {"loss_classifier", "loss_box_reg"} if "box" in model.roi_heads else set()
    assert losses.keys() == expected and all(loss.isfinite() for loss in losses.values())
    if batch == "no objects" and "mask" in model.roi_heads:
        assert losses["loss_mask"] == 0 and losses.get("loss_maskiou", 0) == 0
    sum(losses.values()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name


@pytest.mark.parametrize("variant", ["CenterMask2", "CenterMask"])
def test_without_detections_the_ground_truth_alone_trains_the_heads(variant, rng_seed):
    _, model = make([*VARIANTS[variant], "MODEL.FCOS.INFERENCE_TH", 1.0])
    losses = model.train()(images(), [truth(OBJECTS), truth([])])
    assert losses["loss_mask"] > 0 and losses["loss_maskiou"] > 0
    losses = model(images(), [truth([]), truth([])])
    assert losses["loss_mask"] == losses["loss_maskiou"] == losses["loss_reg"] == losses["loss_centerness"] == 0
    sum(losses.values()).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("threshold", [0.001, 1.0])
def test_detections_have_all_fields_and_lie_in_their_images(variant, threshold, rng_seed):
    _, model = make([*VARIANTS[variant], "MODEL.FCOS.INFERENCE_TH", threshold])
    with torch.no_grad():
        found = model.eval()(images())
    for boxes in found:
        assert (len(boxes) == 0) == (threshold == 1.0) and boxes.size == SIZE
        assert (boxes.bbox >= 0).all() and (boxes.bbox <= torch.tensor([*SIZE, *SIZE])).all()
        assert boxes.get_field("scores").shape == boxes.get_field("labels").shape == (len(boxes),)
        assert boxes.has_field("mask") == ("mask" in model.roi_heads)
        assert boxes.has_field("mask_scores") == ("maskiou" in model.roi_heads)
        assert boxes.has_field("keypoints") == ("keypoint" in model.roi_heads)
        if boxes.has_field("mask"):
            assert boxes.get_field("mask").shape == (len(boxes), 1, 28, 28)
        if boxes.has_field("mask_scores"):
            assert boxes.get_field("mask_scores").shape == (len(boxes),)


def test_an_image_is_detected_alike_alone_and_beside_one_without_detections(rng_seed):
    """CenterMask removed images without detections and pooled the others from the wrong place."""
    _, model = make([*V1, "MODEL.FCOS.INFERENCE_TH", 0.01])
    image = images(1)[0]
    with torch.no_grad():
        (alone,) = model.eval()([image])
        model.rpn.post_process.score_thresh = 1.0
        assert [len(boxes) for boxes in model([image, image])] == [0, 0]
        select = model.rpn.post_process.select
        calls = []

        def only_the_second(candidates):
            calls.append(1)
            return select(candidates[:0] if len(calls) == 1 else candidates)

        model.rpn.post_process.score_thresh = 0.01
        model.rpn.post_process.select = only_the_second
        none, beside = model([torch.zeros_like(image), image])
    assert len(none) == 0 and len(alone) == len(beside) > 0
    torch.testing.assert_close(beside.get_field("mask"), alone.get_field("mask"), atol=1e-4, rtol=1e-4)


def test_masks_of_pixels_train_the_maskiou_head_where_the_original_fails(rng_seed):
    _, model = make()
    batch = images()
    for mode in ("poly", "mask"):
        losses = model.train()(batch, [truth(OBJECTS, mode), truth([], mode)])
        assert losses["loss_maskiou"] > 0 and losses["loss_mask"] > 0


def test_without_masks_it_is_an_fcos_with_clipped_boxes(rng_seed):
    _, model = make(["MODEL.MASK_ON", False, "MODEL.MASKIOU_ON", False])
    assert not model.roi_heads
    losses = model.train()(images(), [truth(OBJECTS), truth([])])
    assert losses.keys() == {"loss_cls", "loss_reg", "loss_centerness"}
    with torch.no_grad():
        for boxes in model.eval()(images()):
            assert (boxes.bbox >= 0).all() and (boxes.bbox <= torch.tensor([*SIZE, *SIZE])).all()


def test_heads_read_whole_boxes_and_detections_are_clipped_with_their_masks(rng_seed):
    _, model = make()
    pooled = []
    hook = model.roi_heads.mask.feature_extractor.pooler.register_forward_hook(
        lambda module, inputs, output: pooled.extend(inputs[1])
    )
    with torch.no_grad():
        model.rpn.head.bbox_pred.bias.fill_(8.0)
        found = model.eval()(images())
    hook.remove()
    for boxes, whole in zip(found, pooled, strict=True):
        assert ((whole.bbox < 0) | (whole.bbox > torch.tensor([*SIZE, *SIZE]))).any()
        torch.testing.assert_close(boxes.bbox, whole.clip_to_image().bbox)


@pytest.mark.parametrize("variant", ["CenterMask2", "CenterMask", "Mask Scoring R-CNN on FCOS"])
def test_the_copy_for_inference_finds_the_same(variant, rng_seed):
    _, model = make(VARIANTS[variant])
    batch = images()
    with torch.no_grad():
        expected, found = model.eval()(batch), for_inference(copy.deepcopy(model))(batch)
    for ours, fast in zip(expected, found, strict=True):
        torch.testing.assert_close(fast.bbox, ours.bbox, atol=1e-2, rtol=1e-4)
        for field in ("scores", "mask", "mask_scores"):
            torch.testing.assert_close(fast.get_field(field), ours.get_field(field), atol=1e-3, rtol=1e-3)
    if variant.startswith("CenterMask"):
        model.rpn.post_process.score_thresh = 1.0
        with torch.no_grad():
            assert [len(boxes.get_field("mask_scores")) for boxes in for_inference(copy.deepcopy(model))(batch)] == [
                0,
                0,
            ]


@pytest.mark.parametrize("variant", ["CenterMask2", "keypoints"])
def test_test_time_augmentation_scores_masks_where_the_original_fails(variant, rng_seed):
    from PIL import Image

    cfg, model = make(
        [
            *VARIANTS[variant],
            *("TEST.BBOX_AUG.ENABLED", True, "TEST.BBOX_AUG.H_FLIP", True, "TEST.BBOX_AUG.SCALES", (80,)),
            *("INPUT.MIN_SIZE_TEST", 64, "INPUT.MAX_SIZE_TEST", 96),
        ]
    )
    image = Image.fromarray(torch.randint(0, 255, (SIZE[1], SIZE[0], 3), dtype=torch.uint8).numpy())
    (found,) = make_bbox_aug(cfg, model.eval())([image])
    assert 0 < len(found) and found.size == SIZE
    assert (found.bbox >= 0).all() and (found.bbox <= torch.tensor([*SIZE, *SIZE])).all()
    assert found.get_field("mask").shape == (len(found), 1, 28, 28)
    assert found.get_field("mask_scores").isfinite().all() and len(found.get_field("mask_scores")) == len(found)


def test_the_gradient_of_the_maskiou_loss_reaches_mask_head_and_body(rng_seed):
    _, model = make()
    losses = model.train()(images(), [truth(OBJECTS), truth(OBJECTS)])
    losses["loss_maskiou"].backward()
    for parameter in (model.roi_heads.mask.predictor.mask_fcn_logits.weight, model.backbone.fpn.fpn_inner4.weight):
        assert parameter.grad.abs().sum() > 0
