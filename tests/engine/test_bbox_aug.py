"""Compare test-time augmentation with the single views of small models."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.tiny_data import write_images
from helpers.tiny_models import tiny_cfg, tiny_model
from PIL import Image

from maskrcnn_benchmark.config import cfg as defaults
from maskrcnn_benchmark.config import check_values
from maskrcnn_benchmark.data.transforms import build_test_views
from maskrcnn_benchmark.engine.bbox_aug import BBoxAug, make_bbox_aug
from maskrcnn_benchmark.engine.testing import make_test_loaders, run_test
from maskrcnn_benchmark.evaluation import load_predictions
from maskrcnn_benchmark.modeling.detector import build_detection_model
from maskrcnn_benchmark.modeling.roi_heads.cascade import CascadeBoxHead
from maskrcnn_benchmark.modeling.roi_heads.roi_heads import CombinedROIHeads
from maskrcnn_benchmark.structures.bounding_box import FLIP_LEFT_RIGHT
from maskrcnn_benchmark.structures.boxlist_ops import boxlist_ml_nms, cat_boxlist
from maskrcnn_benchmark.structures.image_list import to_image_list

CONFIG = str(Path(__file__).parents[2] / "configs/test_time_aug/e2e_mask_rcnn_R_50_FPN_1x.yaml")
DETECTORS = (
    *("fcos", "retinanet", "faster", "mask and keypoint", "cascade mask", "mask, detectron2", "mask scoring"),
    "centermask",
)
SIZES = (
    "INPUT.MIN_SIZE_TEST 64 INPUT.MAX_SIZE_TEST 96 DATALOADER.SIZE_DIVISIBILITY 32 TEST.DETECTIONS_PER_IMG 12 "
    "MODEL.ROI_HEADS.DETECTIONS_PER_IMG 12 MODEL.ROI_HEADS.SCORE_THRESH 0.2 "
    "MODEL.FCOS.PRE_NMS_TOP_N 20 MODEL.RETINANET.PRE_NMS_TOP_N 20 "
    "TEST.BBOX_AUG.ENABLED True TEST.BBOX_AUG.MAX_SIZE 120"
)
FLIPS_AND_SCALES = ["TEST.BBOX_AUG.H_FLIP", True, "TEST.BBOX_AUG.SCALES", [48, 80], "TEST.BBOX_AUG.SCALE_H_FLIP", True]


def build(name, *opts):
    cfg = tiny_cfg(name, *SIZES.split(), *opts)
    model = tiny_model(cfg)
    if name == "centermask":
        torch.nn.init.constant_(model.rpn.head.bbox_pred.bias, 2.0)  # most boxes reach into the image
    return cfg, model


def random_image(width=96, height=64):
    return Image.fromarray(np.random.randint(0, 256, (height, width, 3), dtype=np.uint8))


def network_input(view, image):
    return to_image_list([view.transform(image)], 32)


def last_stage(model):
    if "box" not in model.roi_heads:
        return model.rpn.post_process
    box = model.roi_heads["box"]
    return (box[-1] if isinstance(box, CascadeBoxHead) else box).post_processor


def unsuppressed(model):
    """Return a copy of the model that returns all candidates, without NMS, masks or keypoints."""
    model = copy.deepcopy(model)
    stage = last_stage(model)
    stage.detections_per_img = 0
    if "box" in model.roi_heads:
        stage.nms = 0
        model.roi_heads = CombinedROIHeads(model.roi_heads["box"])
    else:
        stage.nms_thresh = 1e9
        model.roi_heads = CombinedROIHeads()
    return model


def by_score(boxlist):
    return boxlist[boxlist.get_field("scores").argsort(descending=True, stable=True)]


def assert_alike(found, wanted, pixels=1e-3):
    found, wanted = by_score(found), by_score(wanted)
    assert len(found) == len(wanted) and tuple(found.size) == tuple(wanted.size)
    torch.testing.assert_close(found.get_field("scores"), wanted.get_field("scores"), atol=1e-5, rtol=0)
    assert torch.equal(found.get_field("labels"), wanted.get_field("labels"))
    torch.testing.assert_close(found.bbox, wanted.bbox, atol=pixels, rtol=0)
    for name in {"mask", "mask_scores"}.intersection(wanted.fields()):
        torch.testing.assert_close(found.get_field(name), wanted.get_field(name), atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", DETECTORS)
def test_candidates_of_all_views_go_through_one_nms(name, rng_seed):
    cfg, model = build(name, *FLIPS_AND_SCALES)
    views, image = build_test_views(cfg), random_image()
    (found,) = make_bbox_aug(cfg, model)([image])

    everything, seen = unsuppressed(model), []
    widths = [(96, False), (96, True), (72, False), (72, True), (120, False), (120, True)]
    for view, (width, mirrored) in zip(views, widths, strict=True):
        images = network_input(view, image)
        assert images.image_sizes[0][1] == width
        with torch.no_grad():
            (boxes,) = everything(images)
        seen.append((boxes.transpose(FLIP_LEFT_RIGHT) if mirrored else boxes).resize((96, 64)))
    threshold = cfg.MODEL.ROI_HEADS.NMS if "box" in model.roi_heads else last_stage(model).nms_thresh
    wanted = by_score(boxlist_ml_nms(cat_boxlist(seen), threshold))
    assert len(wanted) > 12, "the test requires more candidates than TEST.DETECTIONS_PER_IMG"
    wanted = wanted[:12]
    if name == "centermask":  # whole boxes go to the heads, and some lie outside the image
        wanted = wanted.clip_to_image()
    assert_alike(found, wanted)


@pytest.mark.parametrize("name", DETECTORS)
def test_single_view_equals_the_plain_model(name, rng_seed):
    cfg, model = build(name)
    images = [random_image(), random_image(64, 80)]
    found = make_bbox_aug(cfg, model)(images)
    (view,) = build_test_views(cfg)
    with torch.no_grad():
        wanted = model(to_image_list([view.transform(image) for image in images], 32))
    assert any(map(len, wanted))
    for ours, theirs in zip(found, wanted, strict=True):
        assert ours.fields() == theirs.fields()
        assert_alike(ours, theirs)


@pytest.mark.parametrize("name", DETECTORS)
def test_mirrored_image_gives_mirrored_detections(name, rng_seed):
    cfg, model = build(name, "TEST.BBOX_AUG.H_FLIP", True)
    image = random_image()
    aug = make_bbox_aug(cfg, model)
    (found,), (mirrored,) = aug([image]), aug([image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)])
    found, mirrored = by_score(found), by_score(mirrored)
    boxes = found.copy_with_fields([]).transpose(FLIP_LEFT_RIGHT)
    assert len(found) > 0
    torch.testing.assert_close(mirrored.bbox, boxes.bbox, atol=1e-3, rtol=0)
    if found.has_field("mask"):
        torch.testing.assert_close(mirrored.get_field("mask"), found.get_field("mask").flip(3), atol=1e-4, rtol=0)
    if found.has_field("mask_scores"):
        scores = found.get_field("mask_scores")
        assert not torch.equal(scores, found.get_field("scores"))
        torch.testing.assert_close(mirrored.get_field("mask_scores"), scores, atol=1e-4, rtol=0)
    if found.has_field("keypoints"):
        logits = found.get_field("keypoints").get_field("logits")[:, list(found.get_field("keypoints").FLIP_INDS)]
        torch.testing.assert_close(mirrored.get_field("keypoints").get_field("logits"), logits, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("name", ["mask and keypoint", "cascade mask"])
def test_masks_are_averaged_over_the_views(name, rng_seed):
    cfg, model = build(name, *FLIPS_AND_SCALES)
    image = random_image()
    (found,) = make_bbox_aug(cfg, model)([image])
    boxes, masks = found.copy_with_fields("labels"), []
    for view in build_test_views(cfg):
        images = network_input(view, image)
        seen = boxes.resize(tuple(images.image_sizes[0])[::-1])
        with torch.no_grad():
            features = model.backbone(images.tensors)
            _, (there,), _ = model.roi_heads["mask"](features, [seen.transpose(0) if view.mirrored else seen])
        masks.append(there.get_field("mask").flip(3) if view.mirrored else there.get_field("mask"))
    assert (masks[0] - masks[1]).abs().max() > 0.01
    torch.testing.assert_close(found.get_field("mask"), torch.stack(masks).mean(dim=0), atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", ["fcos", "mask and keypoint"])
def test_no_detections_give_an_empty_list_with_all_fields(name, rng_seed):
    cfg, model = build(name, *FLIPS_AND_SCALES)
    last_stage(model).score_thresh = 0.9999
    for found in make_bbox_aug(cfg, model)([random_image(), random_image(64, 80)]):
        assert len(found) == 0 and found.get_field("labels").dtype == torch.int64
        if model.roi_heads:
            assert found.get_field("mask").shape == (0, 1, 28, 28)
            assert found.get_field("keypoints").keypoints.shape == (0, 17, 3)


def test_mirrored_view_requires_flip_indices_of_all_keypoints(rng_seed):
    cfg, model = build("mask and keypoint", "MODEL.ROI_KEYPOINT_HEAD.NUM_CLASSES", 4)
    view = build_test_views(cfg)[0]
    BBoxAug(model, [view])([random_image()])
    with pytest.raises(ValueError, match="predicts 4 keypoints.*SCALE_H_FLIP"):
        BBoxAug(model, [view, view._replace(mirrored=True)])([random_image()])


def test_views_have_the_forks_order_and_sizes():
    cfg = copy.deepcopy(defaults)
    cfg.merge_from_file(CONFIG)
    check_values(cfg)
    views = build_test_views(cfg)
    assert [view.mirrored for view in views] == [False, True] * 9
    sides = [view.transform.transforms[0] for view in views]
    assert [resize.min_size[0] for resize in sides[::2]] == [800, 400, 500, 600, 700, 900, 1000, 1100, 1200]
    assert [resize.max_size for resize in sides] == [1333] * 2 + [2000] * 16


def test_forks_config_runs_on_a_small_image(rng_seed):
    cfg = copy.deepcopy(defaults)
    cfg.merge_from_file(CONFIG)
    cfg.merge_from_list(["INPUT.MIN_SIZE_TEST", 64, "TEST.BBOX_AUG.SCALES", [48], "MODEL.ROI_HEADS.SCORE_THRESH", 0.0])
    cfg.merge_from_list(["MODEL.RPN.FPN_POST_NMS_TOP_N_TEST", 5, "MODEL.ROI_HEADS.DETECTIONS_PER_IMG", 10])
    (found,) = make_bbox_aug(cfg, build_detection_model(cfg).eval())([random_image()])
    assert len(found) >= 10 and found.get_field("mask").shape == (len(found), 1, 28, 28)


@pytest.mark.parametrize("name", ["fcos", "mask"])
def test_run_test_uses_augmentation_if_enabled(name, tmp_path, rng_seed):
    block = write_images(tmp_path)
    opts = ["OUTPUT_DIR", str(tmp_path / "out"), "DATASETS.TEST", [block], "TEST.IMS_PER_BATCH", 2]
    cfg, model = build(name, *FLIPS_AND_SCALES, *opts)

    outcome = run_test(cfg, model, make_test_loaders(cfg))
    assert "test/bbox/AP" in outcome.figures and ("test/segm/AP" in outcome.figures) == cfg.MODEL.MASK_ON
    predictions = load_predictions(tmp_path / "out/inference/test/predictions.pth")
    assert [found.size for found in predictions] == [(90, 64), (64, 96), (90, 64)]
    with Image.open(tmp_path / "2.png") as second:
        (wanted,) = make_bbox_aug(cfg, model)([second])
    # run_test's copy folds norms and uses the Winograd algorithm; exp() of the box regression enlarges its rounding
    assert_alike(predictions[1], wanted, pixels=1e-2)
