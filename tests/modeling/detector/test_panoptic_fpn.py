import pytest
import torch
from helpers.tiny_models import tiny_cfg, tiny_model

from maskrcnn_benchmark.fast.for_inference import for_inference
from maskrcnn_benchmark.modeling.detector import build_detection_model
from maskrcnn_benchmark.structures.bounding_box import BoxList
from maskrcnn_benchmark.structures.segmentation_mask import SegmentationMask
from maskrcnn_benchmark.structures.semantic_map import IGNORE_LABEL, SemanticMap


def target_of(size, boxes=((5, 5, 40, 30), (20, 10, 60, 50)), **changes):
    width, height = size
    target = BoxList(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4), size)
    target.add_field("labels", torch.arange(1, len(boxes) + 1))
    polygons = [[[x1, y1, x2, y1, x2, y2, x1, y2]] for x1, y1, x2, y2 in boxes]
    target.add_field("masks", SegmentationMask(polygons, size))
    target.add_field("semantic", SemanticMap(torch.randint(0, 4, (height, width), dtype=torch.uint8)))
    for name, data in changes.items():
        target.add_field(name, data)
    return target


def images_of(*sizes):
    return [torch.randn(3, height, width) for width, height in sizes]


SIZES = (80, 64), (60, 72)


def test_training_returns_the_losses_of_all_heads_and_reaches_every_parameter(rng_seed):
    model = build_detection_model(tiny_cfg("panoptic"))
    losses = model(images_of(*SIZES), [target_of(size) for size in SIZES])
    assert set(losses) == {
        "loss_sem_seg",
        "loss_objectness",
        "loss_rpn_box_reg",
        "loss_classifier",
        "loss_box_reg",
        "loss_mask",
    }
    sum(losses.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_images_without_things_or_labels_train(rng_seed):
    model = build_detection_model(tiny_cfg("panoptic"))
    nothing = SemanticMap(torch.full((64, 80), IGNORE_LABEL, dtype=torch.uint8))
    losses = model(images_of(SIZES[0]), [target_of(SIZES[0], boxes=(), semantic=nothing)])
    assert losses["loss_sem_seg"] == 0 and all(value.isfinite() for value in losses.values())
    sum(losses.values()).backward()
    assert all(p.grad is not None for p in model.parameters())


def test_loss_weights_are_those_of_the_config(rng_seed):
    images, targets = images_of(SIZES[0]), [target_of(SIZES[0])]
    weights = ["MODEL.SEM_SEG_HEAD.LOSS_WEIGHT", 0.5, "MODEL.PANOPTIC_FPN.INSTANCE_LOSS_WEIGHT", 3.0]
    found = []
    for options in ([], weights):
        model = build_detection_model(tiny_cfg("panoptic", *options))
        model.load_state_dict(found[0][1] if found else model.state_dict())
        torch.manual_seed(rng_seed)
        found.append((model(images, targets), model.state_dict()))
    (plain, _), (weighted, _) = found
    factors = {"loss_sem_seg": 0.5, "loss_classifier": 3, "loss_box_reg": 3, "loss_mask": 3}
    for name, value in plain.items():
        torch.testing.assert_close(weighted[name], value * factors.get(name, 1))


def test_detections_have_network_size_and_maps_have_output_size(rng_seed):
    model = tiny_model(tiny_cfg("panoptic", "MODEL.PANOPTIC_FPN.COMBINE.INSTANCES_CONFIDENCE_THRESH", 0.0))
    sizes = [(160, 128), (30, 36)]
    with torch.no_grad():
        found = model(images_of(*SIZES), output_sizes=sizes)
    for boxes, size, output_size in zip(found, SIZES, sizes, strict=True):
        assert tuple(boxes.size) == size and len(boxes) and boxes.get_field("mask").shape[1:] == (1, 28, 28)
        panoptic, semantic = boxes.get_field("panoptic"), boxes.get_field("semantic")
        assert panoptic.size == semantic.size == output_size
        assert set(map(int, semantic.unpack().ravel())) <= {0, 1, 2, 3}
        things = [segment for segment in panoptic.segments if segment["is_thing"]]
        assert things and all(segment["score"] >= 0 and segment["label"] in (1, 2) for segment in things)
    with torch.no_grad():
        alone = model(images_of(*SIZES))
    assert [boxes.get_field("panoptic").size for boxes in alone] == list(SIZES)


def test_for_inference_returns_the_same_results(rng_seed):
    model = tiny_model(tiny_cfg("panoptic", "MODEL.SEM_SEG_HEAD.NORM", "BN"))
    images = images_of(*SIZES)
    with torch.no_grad():
        for ours, same in zip(model(images), for_inference(model)(images), strict=True):
            assert (ours.get_field("semantic").unpack() == same.get_field("semantic").unpack()).mean() > 0.999
        with torch.autocast("cpu", dtype=torch.bfloat16):
            half = for_inference(model, torch.bfloat16)
            assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in half.modules())
            assert len(half(images)) == 2


def test_incompatible_targets_and_configs_are_refused(rng_seed):
    model = build_detection_model(tiny_cfg("panoptic"))
    without = target_of(SIZES[0]).copy_with_fields(["labels", "masks"])
    with pytest.raises(ValueError, match="field 'semantic'.*FORMAT: coco_panoptic"):
        model(images_of(SIZES[0]), [without])
    for options, words in (
        (["MODEL.MASK_ON", False], "requires MODEL.MASK_ON True"),
        (["MODEL.RPN_ONLY", True], "a second stage: MODEL.RPN_ONLY False.* RPN_ONLY True"),
        (["MODEL.ROI_MASK_HEAD.POSTPROCESS_MASKS", True], "POSTPROCESS_MASKS False"),
    ):
        with pytest.raises(ValueError, match=words):
            build_detection_model(tiny_cfg("panoptic", *options))
