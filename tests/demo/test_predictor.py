import cv2
import numpy as np
import pytest
import torch
from helpers.tiny_models import MODELS, tiny_cfg, tiny_model

from maskrcnn_benchmark.checkpoint.checkpointer import write_checkpoint
from maskrcnn_benchmark.config import cfg as defaults
from maskrcnn_benchmark.engine.predictor import Predictor
from maskrcnn_benchmark.engine.tracking import Tracker
from maskrcnn_benchmark.modeling.detector import build_detection_model
from maskrcnn_benchmark.visual.palette import label_colors

SMALL = ("INPUT.MIN_SIZE_TEST", 64, "INPUT.MAX_SIZE_TEST", 96)
SCORING_MASKS = ("mask scoring", "centermask", "panoptic centermask")


@pytest.fixture
def COCODemo(demo_module):
    return demo_module("predictor").COCODemo


def image(height=64, width=90, seed=0):
    """Return a random OpenCV image, (height, width, 3) uint8 BGR."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def saved(folder, name, *opts, **entries):
    """Save the weights of a tiny model; return its config."""
    torch.manual_seed(0)
    cfg = tiny_cfg(name, *SMALL, "OUTPUT_DIR", str(folder), *opts)
    write_checkpoint(folder / "model.pth", {"model": tiny_model(cfg).state_dict(), **entries})
    cfg.MODEL.WEIGHT = str(folder / "model.pth")
    cfg.freeze()
    return cfg


@pytest.mark.parametrize("name", list(MODELS))
def test_every_model_detects_and_draws_the_same_as_the_predictor(COCODemo, tmp_path, name):
    cfg = saved(tmp_path, name)
    demo = COCODemo(cfg, confidence_threshold=0.0)
    original = image(100, 150)
    given = original.copy()
    predictions = demo.select_top_predictions(demo.compute_prediction(given))
    expected = Predictor(cfg)(given, channel_order="bgr")
    assert predictions.size == (150, 100) and len(predictions) == len(expected)
    np.testing.assert_allclose(predictions.bbox.numpy(), expected.boxes, atol=1e-3)
    np.testing.assert_allclose(predictions.get_field("scores").numpy(), expected.scores, atol=1e-6)
    assert predictions.get_field("labels").tolist() == expected.labels.tolist()
    if expected.masks is not None:
        masks = predictions.get_field("mask")
        assert masks.shape == (len(expected), 1, 100, 150) and masks.dtype == torch.uint8
        assert (masks[:, 0].numpy() == expected.mask_arrays()).all()
    assert predictions.has_field("mask_scores") == (expected.mask_scores is not None) == (name in SCORING_MASKS)
    if expected.mask_scores is not None:
        np.testing.assert_allclose(predictions.get_field("mask_scores").numpy(), expected.mask_scores, atol=1e-6)
    if expected.keypoints is not None:
        np.testing.assert_allclose(predictions.get_field("keypoints").keypoints.numpy(), expected.keypoints, atol=1e-3)
    drawn = demo.run_on_opencv_image(given)
    assert (given == original).all(), "the given image must not change"
    assert drawn.shape == original.shape and drawn.dtype == np.uint8 and (drawn != original).any()
    if name.startswith("panoptic"):
        assert (drawn[:, :, ::-1] == expected.draw(original[:, :, ::-1])).all()


def test_program_written_for_maskrcnn_benchmark_runs(COCODemo, tmp_path):
    cfg = saved(tmp_path, "mask and keypoint")
    middle = COCODemo(cfg).compute_prediction(image()).get_field("scores").median().item()
    coco_demo = COCODemo(
        cfg,
        confidence_threshold=middle,
        show_mask_heatmaps=False,
        masks_per_dim=2,
        min_image_size=64,
        weight_loading=None,
    )
    frame = image()
    predictions = coco_demo.compute_prediction(frame)
    top_predictions = coco_demo.select_top_predictions(predictions)
    scores = top_predictions.get_field("scores")
    assert 0 < len(top_predictions) < len(predictions) and (scores > middle).all() and (scores.diff() <= 0).all()
    assert top_predictions.bbox.device == coco_demo.cpu_device
    result = frame.copy()
    for overlay in ("overlay_boxes", "overlay_mask", "overlay_keypoints", "overlay_class_names"):
        before = result.copy()
        result = getattr(coco_demo, overlay)(result, top_predictions)
        assert (result != before).any(), overlay
    labels = top_predictions.get_field("labels")
    colors = coco_demo.compute_colors_for_labels(labels)
    assert colors.dtype == np.uint8 and (colors == label_colors(labels)[:, ::-1]).all()
    montage = coco_demo.create_mask_montage(result, top_predictions)
    assert montage.shape == result.shape
    assert coco_demo.run_on_opencv_image(frame).shape == frame.shape


def test_program_written_for_fcos_runs(COCODemo, tmp_path):
    cfg = saved(tmp_path, "fcos")
    coco_demo = COCODemo(cfg, confidence_thresholds_for_classes=[0.65, 0.6], min_image_size=48)
    wide = image(40, 200)
    assert coco_demo.transforms(wide).shape == (3, 48, 240), "the long side is not limited"
    predictions = coco_demo.compute_prediction(wide)
    top = coco_demo.select_top_predictions(predictions)
    thresholds = torch.tensor([0.65, 0.6])[predictions.get_field("labels") - 1]
    assert len(top) == int((predictions.get_field("scores") > thresholds).sum())
    assert COCODemo(cfg, [0.5, 0.5]).transforms(image(100, 100)).shape == (3, 224, 224)
    with pytest.raises(ValueError, match="has 80 numbers, but the model has 2 classes"):
        COCODemo(cfg, [0.5] * 80)


def test_semantic_models_draw_classes(COCODemo, tmp_path):
    cfg = defaults.clone()
    cfg.merge_from_list(
        [
            *(
                "MODEL.META_ARCHITECTURE",
                "SemanticSegmentor",
                "MODEL.BACKBONE.CONV_BODY",
                "V-27",
                "MODEL.DEVICE",
                "cpu",
            ),
            *("MODEL.BACKBONE.OUTPUT_STRIDE", 16, "MODEL.BACKBONE.FREEZE_CONV_BODY_AT", 0, "MODEL.BACKBONE.NORM", "BN"),
            *("MODEL.VOVNET.STEM_CHANNELS", [8, 8, 8], "MODEL.VOVNET.STAGE_CONV_CHANNELS", [8, 8, 8, 8]),
            *("MODEL.VOVNET.STAGE_OUT_CHANNELS", [8, 8, 8, 8], "MODEL.VOVNET.OUT_CHANNELS", 8, *SMALL),
            *("MODEL.DEEPLAB.CHANNELS", 8, "MODEL.SEM_SEG_HEAD.NUM_CLASSES", 5, "OUTPUT_DIR", str(tmp_path)),
        ]
    )
    demo = COCODemo(predictor=Predictor(cfg, model=build_detection_model(cfg).eval()))
    predictions = demo.compute_prediction(image(100, 150))
    assert len(predictions) == 0 and predictions.get_field("semantic").unpack().shape == (100, 150)
    drawn = demo.run_on_opencv_image(image(100, 150))
    assert (drawn != image(100, 150)).mean() > 0.5


def test_thresholds_are_exclusive(COCODemo, tmp_path):
    demo = COCODemo(saved(tmp_path, "fcos"))
    predictions = demo.compute_prediction(image())
    second = predictions.get_field("scores").sort(descending=True).values[1].item()
    demo.confidence_threshold = second
    assert len(demo.select_top_predictions(predictions)) == 1


def test_last_checkpoint_overrides_the_weight_of_the_config(COCODemo, tmp_path):
    cfg = saved(tmp_path, "fcos")
    expected = COCODemo(cfg).compute_prediction(image()).get_field("scores").tolist()
    (tmp_path / "other").mkdir()
    torch.manual_seed(1)
    other = tiny_cfg("fcos", *SMALL)
    write_checkpoint(tmp_path / "other" / "model_final.pth", {"model": tiny_model(other).state_dict()})
    (tmp_path / "last_checkpoint").write_text(str(tmp_path / "other" / "model_final.pth"))
    assert COCODemo(cfg).compute_prediction(image()).get_field("scores").tolist() != expected
    again = COCODemo(cfg, weight_loading=str(tmp_path / "model.pth"))
    assert again.compute_prediction(image()).get_field("scores").tolist() == expected


def test_sizes_are_those_of_the_config_unless_given(COCODemo, tmp_path):
    cfg = saved(tmp_path, "fcos")
    assert COCODemo(cfg).transforms(image(100, 100)).shape == (3, 64, 64)
    assert COCODemo(cfg, min_image_size=80).transforms(image(100, 200)).shape == (3, 48, 96), (
        "INPUT.MAX_SIZE_TEST limits the long side"
    )
    assert cfg.INPUT.MIN_SIZE_TEST == 64


def test_names_come_from_the_checkpoint_or_a_subclass(COCODemo, tmp_path):
    assert len(COCODemo.CATEGORIES) == 81
    assert COCODemo.CATEGORIES[:2] == ["__background", "person"] and COCODemo.CATEGORIES[80] == "toothbrush"
    cfg = saved(tmp_path, "fcos", class_names=["cat", "犬"])
    assert COCODemo(cfg).CATEGORIES == ["__background", "cat", "犬"] and len(COCODemo.CATEGORIES) == 81

    class Own(COCODemo):
        CATEGORIES = ["__background", "bee"]

        def compute_colors_for_labels(self, labels):
            return [(0, 0, 255) for _ in labels]  # red

    demo = Own(cfg, confidence_threshold=0.0)
    assert demo.CATEGORIES == ["__background", "bee"]
    predictions = demo.compute_prediction(image())
    drawn = demo.overlay_boxes(np.zeros((64, 90, 3), np.uint8), predictions)
    assert (drawn == (0, 0, 255)).all(axis=2).any()
    assert not ((drawn[:, :, 0] > drawn[:, :, 2]) & (drawn[:, :, 2] < 200)).any()
    demo.overlay_class_names(drawn, predictions)


def test_coco_weights_without_names_get_coco_names(COCODemo, tmp_path):
    cfg = saved(tmp_path, "fcos", "MODEL.FCOS.NUM_CLASSES", 81)
    assert COCODemo(cfg).CATEGORIES == COCODemo.CATEGORIES


def test_overlays_draw_on_the_given_image(COCODemo, tmp_path):
    demo = COCODemo(saved(tmp_path, "mask"), confidence_threshold=0.0)
    predictions = demo.select_top_predictions(demo.compute_prediction(image()))
    canvas = np.zeros((64, 90, 3), np.uint8)
    assert demo.overlay_boxes(canvas, predictions) is canvas and canvas.any()
    nothing = demo.compute_prediction(image())[[]]
    blank = np.zeros((64, 90, 3), np.uint8)
    for overlay in (demo.overlay_boxes, demo.overlay_mask, demo.overlay_class_names):
        assert not overlay(blank, nothing).any()


def test_heat_maps_are_a_grid_of_probabilities(COCODemo, tmp_path):
    cfg = saved(tmp_path, "mask")
    demo = COCODemo(cfg, confidence_threshold=0.0, show_mask_heatmaps=True, masks_per_dim=3)
    predictions = demo.select_top_predictions(demo.compute_prediction(image()))
    masks = predictions.get_field("mask")
    assert len(masks.unique()) > 2, "masks must be probabilities, not binary"
    montage = demo.run_on_opencv_image(image())
    assert montage.shape == (63, 90, 3)
    first = cv2.applyColorMap(cv2.resize(masks[0, 0].numpy(), (30, 21), interpolation=cv2.INTER_AREA), cv2.COLORMAP_JET)
    assert (montage[:21, :30] == first).all()
    empty = demo.create_mask_montage(image(), predictions[[]])
    assert (empty == cv2.applyColorMap(np.zeros((1, 1), np.uint8), cv2.COLORMAP_JET)[0, 0]).all()
    with pytest.raises(ValueError, match="model with masks"):
        COCODemo(saved(tmp_path, "fcos"), show_mask_heatmaps=True).run_on_opencv_image(image())


def test_unsupported_images_are_errors(COCODemo, tmp_path):
    demo = COCODemo(saved(tmp_path, "fcos"))
    for wrong in (image()[:, :, 0], image().astype(np.float32)):
        with pytest.raises(ValueError, match="OpenCV image must be"):
            demo.compute_prediction(wrong)


def test_tracker_numbers_the_objects(COCODemo, tmp_path):
    predictor = Predictor(saved(tmp_path, "mask"))
    demo = COCODemo(predictor=predictor, confidence_threshold=0.3, tracker=Tracker(high=0.3, low=0.1))
    first = demo.select_tracked_predictions(demo.compute_prediction(image()))
    again = demo.select_tracked_predictions(demo.compute_prediction(image()))
    assert first.get_field("track_ids").min() == 1
    assert again.get_field("track_ids").tolist() == first.get_field("track_ids").tolist()
    assert (again.get_field("scores").diff() <= 0).all()


def test_vis_keypoints_blends_a_skeleton(demo_module):
    points = np.zeros((3, 17), np.float32)
    points[:, 5], points[:, 6] = (10, 20, 9), (50, 20, 1)
    canvas = np.zeros((40, 60, 3), np.uint8)
    vis_keypoints = demo_module("predictor").vis_keypoints
    few = vis_keypoints(canvas, points, kp_thresh=2)
    assert few[20, 10].any() and not few[20, 30].any() and not canvas.any()
    assert vis_keypoints(canvas, points, kp_thresh=0.5)[20, 30].any()
    assert 0 < vis_keypoints(canvas, points, alpha=0.3).max() < few.max()
