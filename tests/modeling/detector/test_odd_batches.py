"""Train detectors on unusual batches."""

import pytest
import torch
from helpers.tiny_models import MODELS, tiny_cfg, tiny_model

from maskrcnn_benchmark.config.convention import get_convention
from maskrcnn_benchmark.modeling.detector import build_detection_model
from maskrcnn_benchmark.structures.bounding_box import BoxList
from maskrcnn_benchmark.structures.image_list import to_image_list
from maskrcnn_benchmark.structures.keypoint import PersonKeypoints
from maskrcnn_benchmark.structures.segmentation_mask import SegmentationMask
from maskrcnn_benchmark.structures.semantic_map import SemanticMap

A_BOX = [[10.0, 10, 40, 50]]
SQUARES = ((96, 64), (64, 96))
# by name: (width, height) of the images, and the boxes of each
BATCHES = {
    "no objects": (SQUARES, ([], [])),
    "one image without objects": (SQUARES, (A_BOX, [])),
    "boxes of a pixel": (SQUARES, ([[5.0, 5, 5, 5]], [[63.0, 95, 63, 95]])),
    "a thousand objects": (SQUARES, (A_BOX * 1000, A_BOX)),
    "a box as large as the image": (SQUARES, ([[0.0, 0, 95, 63]], A_BOX)),
    "images of very different sizes": (((320, 40), (33, 200)), ([[300.0, 5, 319, 39]], [[0.0, 150, 32, 199]])),
}


def truth(boxes, size):
    target = BoxList(boxes, size)
    target.add_field("labels", torch.ones(len(boxes), dtype=torch.int64))
    polygons = [[[x1, y1, x2 + 1, y1, x2 + 1, y2 + 1, x1, y2 + 1]] for x1, y1, x2, y2 in boxes]
    target.add_field("masks", SegmentationMask(polygons, size))
    points = [[[(x1 + x2) / 2, (y1 + y2) / 2, 2.0]] * 17 for x1, y1, x2, y2 in boxes]
    target.add_field("semantic", SemanticMap(torch.zeros(size[1], size[0], dtype=torch.uint8)))
    target.add_field("keypoints", PersonKeypoints(torch.tensor(points).reshape(-1, 17, 3), size))
    return target


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("name", MODELS)
def test_losses_are_finite_and_reach_every_parameter(name, batch, rng_seed):
    sizes, boxes = BATCHES[batch]
    cfg = tiny_cfg(name)
    model = build_detection_model(cfg).train()
    images = to_image_list([torch.randn(3, height, width) for width, height in sizes], 32)
    box_offset = get_convention(cfg.MODEL.CONVENTION).box_offset
    targets = [truth(*pair).with_offset(box_offset) for pair in zip(boxes, sizes, strict=True)]
    losses = model(images, targets)
    assert all(loss.isfinite() for loss in losses.values()), losses
    sum(losses.values()).backward()
    for part, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), part


@pytest.mark.parametrize("name", MODELS)
def test_images_of_very_different_sizes_keep_their_detections_inside(name, rng_seed):
    # Normalized distances are relu's: of a random head all may be 0, and boxes without area are dropped.
    opts = ("MODEL.ROI_HEADS.SCORE_THRESH", 0.0, "MODEL.FCOS.NORM_REG_TARGETS", False)
    model = tiny_model(tiny_cfg(name, *opts))
    sizes = [(320, 40), (33, 200), (1, 1)]
    with torch.no_grad():
        detections = model(to_image_list([torch.randn(3, height, width) for width, height in sizes], 32))
    for found, (width, height) in zip(detections, sizes, strict=True):
        assert tuple(found.size) == (width, height)
        x1, y1, x2, y2 = found.bbox.unbind(dim=1)
        assert (x1 >= 0).all() and (y1 >= 0).all() and (x2 <= width).all() and (y2 <= height).all()
    assert len(detections[0]) > 0 and len(detections[1]) > 0
