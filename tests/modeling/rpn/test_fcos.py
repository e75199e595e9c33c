"""Compare FCOS with recorded outputs of VoVNet-FCOS and upstream FCOS, and test edge cases."""

import copy
import gzip
import json

import numpy as np
import pytest
import torch
from helpers.centermask_models import GOLDEN as CENTERMASK
from helpers.golden_models import GOLDEN, GoldenModel, check_detections, check_losses, check_tensor, golden_targets

from maskrcnn_benchmark.config import cfg as defaults
from maskrcnn_benchmark.layers.iou_loss import IOULoss, iou_loss
from maskrcnn_benchmark.modeling.detector import build_detection_model
from maskrcnn_benchmark.modeling.rpn.anchor_generator import PointGenerator
from maskrcnn_benchmark.modeling.rpn.dense_detector import DenseDetector
from maskrcnn_benchmark.modeling.rpn.dense_post_process import DensePostProcessor
from maskrcnn_benchmark.modeling.rpn.detections import best_detections
from maskrcnn_benchmark.modeling.rpn.fcos.fcos import FCOSHead
from maskrcnn_benchmark.modeling.rpn.fcos.inference import boxes_from_distances
from maskrcnn_benchmark.modeling.rpn.fcos.loss import FCOSLoss, centerness_of
from maskrcnn_benchmark.modeling.rpn.fcos.targets import FCOSTargets
from maskrcnn_benchmark.modeling.rpn.flatten import flatten_levels
from maskrcnn_benchmark.structures.bounding_box import BoxList
from maskrcnn_benchmark.structures.image_list import to_image_list

STRIDES = (8, 16, 32, 64, 128)
BOUNDS = (64, 128, 256, 512)

GOLDENS = {
    "fcos_V_39": ("vovnet/fcos_V_39_FPN_1x.yaml", ()),
    "fcos_R_50": ("fcos/fcos_R_50_FPN_1x.yaml", ()),
    "fcos_MNV2_syncbn_c128": ("fcos/fcos_syncbn_bs32_c128_MNV2_FPN_1x.yaml", ()),
    "fcosup_imprv_R_50": ("fcos/fcos_imprv_R_50_FPN_1x.yaml", ()),
}


@pytest.fixture(scope="module", params=GOLDENS)
def golden(request):
    return GoldenModel(request.param, *GOLDENS[request.param])


@pytest.fixture(scope="module")
def outputs(golden):
    return golden.outputs()


def test_maps_and_detections_equal_the_originals(golden, outputs):
    recorded = golden.golden["test"][0]
    check_tensor(golden.images.tensors, recorded["batched_input"], "input")
    body, features, (logits, distances, centerness), detections = outputs
    for name, maps, expected in [
        ("body", body, recorded["backbone_body"]),
        ("FPN", features, recorded["features"]),
        ("logits", logits, recorded["head"]["cls"]),
        ("distances", distances, recorded["head"]["bbox"]),
        ("centreness", centerness, recorded["head"]["centerness"]),
    ]:
        assert len(maps) == len(expected)
        for level, (tensor, entry) in enumerate(zip(maps, expected, strict=True)):
            check_tensor(tensor, entry, f"{name} of level {level}")
    for found, entry in zip(detections, recorded["detections"], strict=True):
        check_detections(found, entry, golden.arrays)


def test_losses_and_gradients_equal_the_originals(golden):
    check_losses(golden.model, golden.losses(), golden.golden["train"])


def test_detections_are_best_first(outputs):
    for found in outputs[-1]:
        scores = found.get_field("scores")
        assert (scores[:-1] >= scores[1:]).all()


@pytest.mark.parametrize(
    "file, case, options",
    [
        ("assign_fcos_vovfork", "plain", {}),
        ("assign_fcos_upstream", "plain", {}),
        ("assign_fcos_upstream", "radius1.5", {"center_sampling_radius": 1.5}),
        ("assign_fcos_upstream", "radius1.5_norm", {"center_sampling_radius": 1.5, "normalize_distances": True}),
    ],
)
@pytest.mark.parametrize("max_pairs", [2**21, 4000])
def test_assignment_equals_the_originals(file, case, options, max_pairs, monkeypatch):
    monkeypatch.setattr("maskrcnn_benchmark.modeling.rpn.fcos.targets.MAX_PAIRS", max_pairs)
    recorded = json.loads((GOLDEN / f"{file}.json").read_text())
    height, width = recorded["padded_input_hw"]
    locations = PointGenerator(STRIDES).grid_anchors([(-(-height // s), -(-width // s)) for s in STRIDES])
    labels, distances = FCOSTargets(STRIDES, BOUNDS, **options)(locations, golden_targets())
    sizes = [len(points) for points in locations]
    for level, level_record in enumerate(recorded[case]):
        level_labels = labels.split(sizes, dim=1)[level].reshape(-1)
        level_distances = distances.split(sizes, dim=1)[level].reshape(-1, 4)
        assert len(level_labels) == level_record["n_locations_two_images"]
        positive = level_labels.nonzero().squeeze(1)
        assert positive.tolist() == level_record["pos_index"]
        assert level_labels[positive].tolist() == level_record["pos_label"]
        expected = np.array(level_record["pos_ltrb"], dtype=np.float32).reshape(-1, 4)
        np.testing.assert_allclose(level_distances[positive].numpy(), expected, rtol=1e-6, atol=1e-5)
        total = centerness_of(level_distances[positive]).sum().item()
        assert total == pytest.approx(level_record["centerness_sum"], rel=1e-5)


def small_model(num_classes=4, normalizer="positives_and_images", **options):
    head = FCOSHead(32, num_classes, STRIDES, num_convs=1, tower_channels=64, **options)
    assign = FCOSTargets(STRIDES, BOUNDS)
    loss = FCOSLoss(assign, normalizer=normalizer)
    return DenseDetector(PointGenerator(STRIDES), head, loss, post_processor(num_classes))


def post_processor(num_classes=1, score_thresh=0.05, pre_nms_top_n=1000, nms_thresh=0.6, detections_per_img=100):
    return DensePostProcessor(
        boxes_from_distances, num_classes, score_thresh, pre_nms_top_n, nms_thresh, detections_per_img
    )


def level_locations(height, width, stride):
    return PointGenerator([stride]).grid_anchors([(height, width)])[0]


def maps_for(images, requires_grad=False):
    return [
        torch.randn(len(images.image_sizes), 32, -(-side[0] // s), -(-side[1] // s), requires_grad=requires_grad)
        for side in [images.tensors.shape[-2:]]
        for s in STRIDES
    ]


def target(boxes, labels, size=(160, 128)):
    boxlist = BoxList(boxes, size)
    boxlist.add_field("labels", torch.tensor(labels, dtype=torch.int64))
    return boxlist


def test_deformable_towers_are_initialized_as_upstream_and_train(rng_seed):
    images = to_image_list(torch.zeros(2, 3, 128, 160))
    model = small_model(deformable_last=True).train()
    for tower in (model.head.cls_tower, model.head.bbox_tower):
        layer = tower[0]  # with one convolution, the first is the last
        assert layer.offset.weight.std().item() == pytest.approx(0.01, rel=0.1) and not layer.offset.bias.any()
        assert layer.conv.weight.abs().max().item() == pytest.approx((1 / (32 * 9)) ** 0.5, rel=0.02)
    _, losses = model(images, maps_for(images), [target([[10.0, 10, 90, 90]], [2])] * 2)
    sum(losses.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("normalizer", ["positives_and_images", "positives"])
@pytest.mark.parametrize(
    "targets",
    [
        [target([], []), target([], [])],
        [target([], []), target([[10.0, 10, 90, 90]], [2])],
        [target([[50.0, 50, 50, 50]], [1]), target([[3.0, 3, 3.5, 3.2]], [4])],
        [target([[0.0, 0, 159, 127]] * 1000, [1] * 1000), target([[-50.0, -50, 400, 400]], [1])],
    ],
    ids=["no objects", "one image without objects", "boxes of a pixel", "a thousand objects"],
)
def test_losses_are_finite_and_reach_every_parameter(targets, normalizer, rng_seed):
    images = to_image_list(torch.zeros(2, 3, 128, 160))
    model = small_model(normalizer=normalizer).train()
    _, losses = model(images, maps_for(images), targets)
    assert set(losses) == {"loss_cls", "loss_reg", "loss_centerness"}
    sum(losses.values()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name


@pytest.mark.parametrize("loss_type", ["iou", "linear_iou", "giou"])
def test_box_loss_decreases_with_better_boxes(loss_type, rng_seed):
    loss = FCOSLoss(FCOSTargets(STRIDES, BOUNDS), iou_loss_type=loss_type)
    shapes = [(16 * 8 // s, 16 * 8 // s) for s in STRIDES]
    locations = PointGenerator(STRIDES).grid_anchors(shapes)
    targets = [target([[20.0, 24, 70, 80]], [1], (128, 128))]
    _, distances = loss.assign(locations, targets)
    exact = [
        part.transpose(1, 2).reshape(1, 4, *shape)
        for part, shape in zip(distances.split([len(p) for p in locations], dim=1), shapes, strict=True)
    ]
    zeros = [torch.zeros(1, 1, *shape) for shape in shapes]
    values = [
        loss(locations, zeros, [(level.clamp(min=0) + off) for level in exact], zeros, targets)["loss_reg"].item()
        for off in (0.0, 5.0, 20.0)
    ]
    assert values[0] == pytest.approx(0, abs=1e-5) and values[0] < values[1] < values[2]


def test_flattened_order_is_level_then_row():
    maps = [torch.arange(12.0).reshape(1, 2, 2, 3), torch.tensor([[[[100.0]], [[200.0]]]])]
    assert flatten_levels(maps, 2)[0].tolist() == [[0, 6], [1, 7], [2, 8], [3, 9], [4, 10], [5, 11], [100, 200]]


def test_no_candidates_return_empty_detections(rng_seed):
    images = to_image_list(torch.zeros(2, 3, 128, 160))
    model = small_model(prior_prob=1e-6).eval()
    detections, losses = model(images, maps_for(images))
    assert losses == {} and len(detections) == 2
    for found in detections:
        assert len(found) == 0 and found.size == (160, 128)
        assert found.get_field("scores").shape == (0,) and found.get_field("labels").dtype == torch.int64


def test_boxes_are_clipped_to_each_image_not_to_the_batch(rng_seed):
    images = to_image_list([torch.zeros(3, 100, 160), torch.zeros(3, 128, 90)], 32)
    model = small_model(prior_prob=0.5).eval()
    with torch.no_grad():
        model.head.bbox_pred.bias.fill_(6.0)
    for found, (height, width) in zip(model(images, maps_for(images))[0], images.image_sizes, strict=True):
        assert 0 < len(found) and found.size == (width, height)
        assert found.bbox[:, 2].max() == width - 1 and found.bbox[:, 3].max() == height - 1 and found.bbox.min() == 0


def test_an_image_of_one_pixel_passes(rng_seed):
    images = to_image_list(torch.zeros(1, 3, 1, 1))
    detections, _ = small_model(prior_prob=0.5).eval()(images, maps_for(images))
    assert detections[0].size == (1, 1)


def test_all_that_tie_with_the_last_detection_are_kept():
    post = post_processor(detections_per_img=3)
    locations = level_locations(1, 6, 100)
    logits = torch.zeros(1, 1, 1, 6)
    distances, centerness = [torch.full((1, 4, 1, 6), 5.0)], [torch.zeros(1, 1, 1, 6)]
    logits[..., 0] = 2.0
    found = post([locations], ([logits], distances, centerness), [(100, 700)])[0]
    assert len(found) == 6
    logits[..., 1:3] = 1.0
    found = post([locations], ([logits], distances, centerness), [(100, 700)])[0]
    assert len(found) == 3


@pytest.mark.parametrize("off", [0, -1])
def test_limits_of_zero_or_less_are_disabled(off):
    outputs = [torch.zeros(1, 1, 1, 6)], [torch.full((1, 4, 1, 6), 30.0)], [torch.zeros(1, 1, 1, 6)]
    given = [level_locations(1, 6, 10)], outputs, [(100, 700)]
    assert len(post_processor(nms_thresh=0.3)(*given)[0]) < 6
    assert len(post_processor(1, 0.05, off, off, off)(*given)[0]) == 6


def test_score_threshold_ignores_centerness():
    post = post_processor(score_thresh=0.5)
    logits = torch.tensor([[[[0.1, -0.1]]]])
    centerness = torch.full((1, 1, 1, 2), -5.0)
    outputs = [logits], [torch.full((1, 4, 1, 2), 5.0)], [centerness]
    found = post([level_locations(1, 2, 100)], outputs, [(100, 300)])[0]
    assert len(found) == 1
    expected = (torch.tensor(0.1).sigmoid() * torch.tensor(-5.0).sigmoid()).sqrt()
    assert found.get_field("scores").item() == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize(
    "opts, message",
    [
        (["MODEL.FCOS.NUM_CLASSES", -1], "NUM_CLASSES"),
        (["MODEL.FCOS.LOSS_NORMALIZER", "images"], "LOSS_NORMALIZER"),
        (["MODEL.FCOS.FPN_STRIDES", [8, 16]], "SIZES_OF_INTEREST"),
        (["MODEL.FCOS.TOWER_CHANNELS", 40], "32 groups"),
        (["MODEL.FCOS.TOWER_CHANNELS", 32], "require 64"),
        (["MODEL.CONVENTION", "caffe"], "CONVENTION"),
        (["MODEL.META_ARCHITECTURE", "YOLO"], "META_ARCHITECTURE"),
    ],
)
def test_invalid_configs_are_refused(opts, message):
    cfg = copy.deepcopy(defaults)
    cfg.merge_from_list(["MODEL.FCOS_ON", True, "MODEL.RPN_ONLY", True])
    cfg.merge_from_list(["MODEL.BACKBONE.CONV_BODY", "V-39-FPN-RETINANET", *opts])
    with pytest.raises(ValueError, match=message), torch.device("meta"):
        build_detection_model(cfg)


# ---- CenterMask2's small cases


@pytest.fixture(scope="module")
def centermask():
    return json.loads(gzip.decompress((CENTERMASK / "units.json.gz").read_bytes()))


SQUARE = PointGenerator(STRIDES).grid_anchors([(max(128 // s, 1),) * 2 for s in STRIDES])


@pytest.mark.parametrize(
    "case",
    [
        "one",
        "nested",
        "no_center_sampling",
        "radius_1",
        "large",
        "small",
        "tie_same_box",
        "second_center_x_zero",
        "empty",
    ],
)
def test_assignment_equals_centermask2(case, centermask):
    recorded = centermask["target_assignment_128"][case]
    radius = {"no_center_sampling": 0.0, "radius_1": 1.0}.get(case, 1.5)
    assign = FCOSTargets(STRIDES, BOUNDS, radius, normalize_distances=True, box_offset=0.0)
    labels, distances = assign(SQUARE, [target(recorded["boxes"], [k + 1 for k in recorded["classes"]], (128, 128))])
    positive = labels[0].nonzero().squeeze(1)
    assert positive.tolist() == recorded["pos_index"]
    assert (labels[0][positive] - 1).tolist() == recorded["label"]
    np.testing.assert_allclose(distances[0][positive].numpy(), np.reshape(recorded["reg"], (-1, 4)), rtol=1e-6)


def test_an_object_centered_on_the_left_border_is_trained_where_centermask2_drops_its_image(centermask):
    recorded = centermask["target_assignment_128"]["first_center_x_zero"]
    labels, _ = FCOSTargets(STRIDES, BOUNDS, 1.5)(SQUARE, [target(recorded["boxes"], [6, 7], (128, 128))])
    assert recorded["pos_index"] == [] and set(labels[labels > 0].tolist()) == {6, 7}


def test_iou_losses_equal_centermask2(centermask):
    case = centermask["iou_loss"]
    for kind, expected in case["per_row"].items():
        found = iou_loss(torch.tensor(case["pred"]), torch.tensor(case["target"]), kind)
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5, atol=1e-6)
    pred, truth, weights = torch.tensor(case["pred"]), torch.tensor(case["target"]), torch.tensor([1, 0.5, 0.25, 0.1])
    assert IOULoss("giou")(pred, truth, weights).item() == pytest.approx(case["weighted_giou"], rel=1e-5)
    # CenterMask divides by the weights, or by the number of locations
    for kind, expected in centermask["v1"]["iou_loss"]["weighted"].items():
        assert (IOULoss(kind)(pred, truth, weights) / weights.sum()).item() == pytest.approx(expected, rel=1e-5), kind
    for kind, expected in centermask["v1"]["iou_loss"]["unweighted_mean"].items():
        assert IOULoss(kind)(pred, truth).item() / 4 == pytest.approx(expected, rel=1e-5), kind
    case = centermask["centerness_target"]
    np.testing.assert_allclose(centerness_of(torch.tensor(case["reg"])).numpy(), case["out"], rtol=1e-6)


@pytest.mark.parametrize("kind", ["losses", "losses_no_positive"])
def test_losses_equal_centermask2(kind, centermask):
    case = centermask["fcos_losses"]
    labels = torch.tensor(case["labels"])
    labels = torch.where(labels == case["background"], 0, labels + 1)
    if kind == "losses_no_positive":
        labels = torch.zeros_like(labels)
    # four locations in a row on a single level of stride 8
    distances = torch.tensor(case["reg_target"]) + (labels == 0)[:, None]

    def assign(locations, targets):
        return labels[None], distances[None]

    loss = FCOSLoss(assign, iou_loss_type="giou", normalizer="positives", strides=[8])
    maps = [
        torch.tensor(case[name]).reshape(1, 4, -1).permute(0, 2, 1)[:, :, None]
        for name in ("logits", "reg_pred", "ctr")
    ]
    found = loss([torch.zeros(4, 2)], [maps[0]], [maps[1] * 8], [maps[2]], [None])
    for ours, theirs in (
        ("loss_cls", "loss_fcos_cls"),
        ("loss_reg", "loss_fcos_loc"),
        ("loss_centerness", "loss_fcos_ctr"),
    ):
        assert found[ours].item() == pytest.approx(case[kind][theirs], rel=1e-5, abs=1e-7), ours


def test_nms_and_its_cut_equal_centermask2(centermask):
    case = centermask["nms_and_topk"]
    candidates = target(case["boxes"], case["classes"], (100, 100))
    candidates.box_offset = 0.0
    candidates.add_field("scores", torch.tensor(case["scores"]))
    # The second box has an IoU of 0.6 with the first one and stays, as on a GPU. On their CPU float32's 0.6 exceeds it.
    (found,) = best_detections([candidates], 0.6, 100)
    assert 0.8 in [round(score, 6) for score in found.get_field("scores").tolist()]
    candidates = candidates[[0, 2, 3, 4, 5]]
    for top, key in ((100, "nms_0p6"), (2, "post_top_2")):
        (found,) = best_detections([candidates], 0.6, top)
        assert found.get_field("scores").tolist() == pytest.approx(case[key]["scores"])
        assert found.get_field("labels").tolist() == case[key]["classes"]
    (in_order,) = best_detections([candidates[[2, 0, 4, 1]]], 0.6, 100, best_first=False)
    assert in_order.get_field("labels").tolist() == [2, 1, 2]


@pytest.mark.parametrize("root", [True, False])
def test_scores_are_products_or_their_roots_and_boxes_clipped_or_not(root):
    points = torch.tensor([[8.0, 8.0]])
    outputs = [
        [torch.full((1, 1, 1, 1), 1.0)],
        [torch.full((1, 4, 1, 1), 20.0)],
        [torch.full((1, 1, 1, 1), 2.0)],
    ]
    process = DensePostProcessor(
        boxes_from_distances, 1, 0.05, 10, 0.6, 10, box_offset=0.0, score_root=root, clips=root
    )
    (found,) = process([points], outputs, [(16, 16)])
    product = torch.tensor([1.0, 2.0]).sigmoid().prod()
    assert found.get_field("scores").item() == pytest.approx((product.sqrt() if root else product).item())
    assert found.bbox.tolist() == ([[0.0, 0.0, 16.0, 16.0]] if root else [[-12.0, -12.0, 28.0, 28.0]])
