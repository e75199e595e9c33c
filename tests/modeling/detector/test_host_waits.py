"""Count host waits for the GPU in the forward and backward pass of a training step.

They are counted on a simulated device, and by torch if there is a GPU. The trainer's reading of the losses is one more.
"""

import warnings
from collections import Counter

import pytest
import torch
from helpers.simulated_device import SimulatedDevice, move_there
from helpers.tiny_models import MODELS, tiny_cfg

from maskrcnn_benchmark.config.convention import get_convention
from maskrcnn_benchmark.modeling.detector import build_detection_model
from maskrcnn_benchmark.native import library
from maskrcnn_benchmark.structures.bounding_box import BoxList
from maskrcnn_benchmark.structures.image_list import to_image_list
from maskrcnn_benchmark.structures.keypoint import PersonKeypoints
from maskrcnn_benchmark.structures.segmentation_mask import SegmentationMask
from maskrcnn_benchmark.structures.semantic_map import SemanticMap

# Waits for any number of images, if nothing else is said:
PROPOSALS = {
    "rpn/inference.py _best": 1,  # NMS: the number of kept proposals is a shape
    "rpn/inference.py _best_of_batch": 1,  # number of proposals of each image
}
DRAWN = {"roi_heads/box_head/loss.py subsample": 1}  # number of sampled regions: the batch size of the box head
TARGETS = {"roi_heads/mask_head/loss.py targets": 1}  # boxes and matches: masks are rasterized on the host
MASKS = TARGETS | {
    "roi_heads/mask_head/mask_head.py forward": 1,  # number of positive regions: the batch size of the mask head
}
KEYPOINTS = {
    "roi_heads/keypoint_head/loss.py subsample": 1,  # as DRAWN
    "roi_heads/keypoint_head/loss.py __call__": 1,  # number of visible keypoints: half of the maps have weight 0
}
STAGES = 3
IMAGES = 3
# CenterMask: regions of all levels and images
CENTERMASK = TARGETS | {
    "rpn/dense_post_process.py _above_threshold": 2,  # numbers of candidates, before and after the sigmoid
    "rpn/detections.py best_detections": IMAGES,  # NMS of each image: the number of kept detections is a shape
    "rpn/detections.py _cut": 1,  # number of detections that tie with the last one
    "roi_heads/regions.py __call__": 1,  # number of sampled regions, all of them positive
}
WAITS = {
    "fcos": {},
    "retinanet": {},
    "rpn": {},
    "faster": PROPOSALS | DRAWN,
    "mask": PROPOSALS | DRAWN | MASKS,
    "keypoint": PROPOSALS | DRAWN | KEYPOINTS,
    "mask and keypoint": PROPOSALS | DRAWN | MASKS | KEYPOINTS,
    "mask, detectron2": PROPOSALS | DRAWN | MASKS,
    "panoptic": PROPOSALS | DRAWN | MASKS,
    "mask scoring": PROPOSALS | DRAWN | MASKS,
    "centermask": CENTERMASK,
    "panoptic centermask": CENTERMASK,
    "cascade mask": PROPOSALS
    | {place: STAGES for place in DRAWN | MASKS}
    | {"roi_heads/cascade.py _proposals_of_next_stage": STAGES},  # number of regions other than the ground truth
}
SIZES = ((96, 64), (64, 96), (70, 70))


def batch(name):
    """Return the model, three images, and BoxLists of two, zero and one objects."""
    cfg = tiny_cfg(name)
    model = build_detection_model(cfg).train()
    if cfg.MODEL.FCOS_ON:  # a fresh head detects nothing
        torch.nn.init.zeros_(model.rpn.head.cls_logits.bias)
    images = to_image_list([torch.randn(3, height, width) for width, height in SIZES], 32)
    all_boxes = ([[10.0, 10, 40, 50], [5, 5, 25, 30]], [], [[20.0, 20, 60, 60]])
    offset = get_convention(cfg.MODEL.CONVENTION).box_offset
    return model, images, [truth(*pair).with_offset(offset) for pair in zip(all_boxes, SIZES, strict=True)]


def truth(boxes, size):
    target = BoxList(boxes, size)
    target.add_field("labels", torch.ones(len(boxes), dtype=torch.int64))
    polygons = [[[x1, y1, x2, y1, x2, y2, x1, y2]] for x1, y1, x2, y2 in boxes]
    target.add_field("masks", SegmentationMask(polygons, size))
    points = [[[(x1 + x2) / 2, (y1 + y2) / 2, 2.0]] * 17 for x1, y1, x2, y2 in boxes]
    target.add_field("keypoints", PersonKeypoints(torch.tensor(points).reshape(-1, 17, 3), size))
    target.add_field("semantic", SemanticMap(torch.zeros(size[1], size[0], dtype=torch.uint8)))
    return target


def test_every_model_has_expected_waits():
    assert set(WAITS) == set(MODELS)


@pytest.mark.skipif(not library.declared(), reason="the simulated device requires the compiled ops")
@pytest.mark.parametrize("name", WAITS)
def test_waits_of_a_training_step_on_a_simulated_device(name, rng_seed):
    model, images, targets = batch(name)
    with SimulatedDevice() as device:
        move_there(model)
        images, targets = images.to("meta"), [target.to("meta") for target in targets]
        device.waits.clear()
        losses = model(images, targets)
        sum(losses.values()).backward()
        counted = Counter()
        for (_, place), count in device.waits.items():
            counted[place] += count
        assert dict(counted) == WAITS[name], device.waits
        assert all(bool(loss.isfinite()) for loss in losses.values())
    assert all(parameter.grad is not None for parameter in model.parameters() if parameter.requires_grad)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU; the simulated device covers it")
@pytest.mark.parametrize("name", WAITS)
def test_waits_of_a_training_step_on_a_gpu(name, rng_seed):
    model, images, targets = batch(name)
    model.cuda()
    images, targets = images.to("cuda"), [target.to("cuda") for target in targets]
    sum(model(images, targets).values()).backward()  # the first step's setup is not counted
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            sum(model(images, targets).values()).backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    waits = [str(warning.message) for warning in caught if "synchronizing CUDA operation" in str(warning.message)]
    assert len(waits) <= sum(WAITS[name].values()), caught  # torch does not see the wait of our NMS


# ---- the simulated device itself


def on_device(values=(1.0, 0.0, 2.0)):
    return torch.tensor(values).to("meta")


WAITING = {
    "item": lambda x: x[0].item(),
    "float": lambda x: float(x.sum()),
    "bool": lambda x: bool((x > 0).any()),
    "tolist": lambda x: x.tolist(),
    "cpu": lambda x: x.cpu(),
    "nonzero": lambda x: x.nonzero(),
    "where of one argument": lambda x: torch.where(x > 0),
    "mask": lambda x: x[x > 0],
    "assignment to a mask": lambda x: x.index_put_((x > 0,), x[:1].expand(2)),
    "masked_select": lambda x: x.masked_select(x > 0),
    "unique": lambda x: x.unique(),
    "repeat_interleave": lambda x: x.repeat_interleave(x.long()),
    "bincount": lambda x: x.long().bincount(),
    "numbers to the device": lambda x: x.new_tensor([1.0, 2.0]) + 1,
    "a number to the device": lambda x: torch.tensor(1.0, device="meta") + 1,
    "a tensor to the device": lambda x: torch.ones(2).to("meta"),
    "a copy to the device": lambda x: x[:2].copy_(torch.ones(2)),
    "indices of the host": lambda x: x[torch.tensor([0, 2])],
    "another comparison": lambda x: x.equal(x),
}
NOT_WAITING = {
    "arithmetic": lambda x: torch.where(x > 0, x, 1.0).sum() * 2,
    "indices": lambda x: x[x.long()],
    "nonzero_static": lambda x: torch.nonzero_static(x > 0, size=2),
    "repeat_interleave of a known size": lambda x: x.repeat_interleave(2),
    "factories": lambda x: x.new_full((2,), 3.0) + torch.arange(2, device="meta") + torch.zeros_like(x)[:2],
    "sent without waiting": lambda x: torch.ones(2).to("meta", non_blocking=True),
    "on the host": lambda x: torch.ones(2)[torch.tensor([True, False])].item(),
}


@pytest.mark.parametrize("way", WAITING)
def test_the_simulated_device_counts(way):
    with SimulatedDevice() as device:
        x = on_device()
        device.waits.clear()
        WAITING[way](x)
        assert sum(device.waits.values()) == 1


@pytest.mark.parametrize("way", NOT_WAITING)
def test_the_simulated_device_does_not_count(way):
    with SimulatedDevice() as device:
        x = on_device()
        device.waits.clear()
        NOT_WAITING[way](x)
        assert not device.waits
