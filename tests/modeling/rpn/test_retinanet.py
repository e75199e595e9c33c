"""Compare RetinaNet with the originals, and test edge cases."""

import pytest
import torch
from helpers.golden_models import GoldenModel, check_detections, check_losses, check_tensor

from maskrcnn_benchmark.config import cfg as defaults
from maskrcnn_benchmark.modeling.backbone import build_backbone
from maskrcnn_benchmark.modeling.box_coder import BoxCoder
from maskrcnn_benchmark.modeling.rpn.dense_post_process import DensePostProcessor
from maskrcnn_benchmark.modeling.rpn.retinanet.retinanet import RetinaNetHead
from maskrcnn_benchmark.modeling.rpn.rpn import build_rpn
from maskrcnn_benchmark.structures.bounding_box import BoxList
from maskrcnn_benchmark.structures.image_list import to_image_list

STRIDES = (8, 16, 32, 64, 128)


@pytest.fixture(scope="module")
def golden():
    return GoldenModel("retinanet_R_50_FPN", "retinanet/retinanet_R-50-FPN_1x.yaml")


def test_maps_and_detections_equal_the_originals(golden):
    recorded = golden.golden["test"][0]
    body, features, (logits, codes), detections = golden.outputs()
    for name, maps, expected in [
        ("body", body, recorded["backbone_body"]),
        ("FPN", features, recorded["features"]),
        ("logits", logits, recorded["head"]["cls"]),
        ("codes", codes, recorded["head"]["bbox"]),
    ]:
        assert len(maps) == len(expected)
        for level, (tensor, entry) in enumerate(zip(maps, expected, strict=True)):
            check_tensor(tensor, entry, f"{name} of level {level}")
    for found, entry in zip(detections, recorded["detections"], strict=True):
        check_detections(found, entry, golden.arrays)
        scores = found.get_field("scores")
        assert (scores[:-1] >= scores[1:]).all()


def test_losses_and_gradients_equal_the_originals(golden):
    check_losses(golden.model, golden.losses(), golden.golden["train"])


def small_model(*opts):
    cfg = defaults.clone()
    cfg.merge_from_list(["MODEL.RETINANET_ON", True, "MODEL.RETINANET.NUM_CLASSES", 4, "MODEL.RETINANET.NUM_CONVS", 1])
    cfg.merge_from_list(list(opts))
    return build_rpn(cfg, 8)


def maps_for(images):
    height, width = images.tensors.shape[-2:]
    return [torch.randn(len(images), 8, -(-height // s), -(-width // s)) for s in STRIDES]


def target(boxes, labels, size=(160, 128)):
    boxlist = BoxList(boxes, size)
    boxlist.add_field("labels", torch.tensor(labels, dtype=torch.int64))
    return boxlist


@pytest.mark.parametrize(
    "targets",
    [
        [target([], []), target([], [])],
        [target([], []), target([[10.0, 10, 90, 90]], [2])],
        [target([[50.0, 50, 50, 50]], [1]), target([[3.0, 3, 3, 3]], [3])],
        [target([[0.0, 0, 159, 127]] * 1000, [1] * 1000), target([[-50.0, -50, 400, 400]], [1])],
    ],
    ids=["no objects", "one image without objects", "boxes of a pixel", "a thousand objects"],
)
def test_losses_are_finite_and_reach_every_parameter(targets, rng_seed):
    images = to_image_list(torch.zeros(2, 3, 128, 160))
    model = small_model().train()
    boxes, losses = model(images, maps_for(images), targets)
    assert boxes is None and set(losses) == {"loss_retina_cls", "loss_retina_reg"}
    sum(losses.values()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name


def test_no_candidates_return_empty_detections(rng_seed):
    images = to_image_list([torch.zeros(3, 100, 160), torch.zeros(3, 128, 90)], 32)
    detections, losses = small_model("MODEL.RETINANET.PRIOR_PROB", 1e-6).eval()(images, maps_for(images))
    assert losses == {}
    for found, (height, width) in zip(detections, images.image_sizes, strict=True):
        assert len(found) == 0 and found.size == (width, height)
        assert found.get_field("scores").shape == (0,) and found.get_field("labels").dtype == torch.int64


def post_processor(**options):
    options = {"score_thresh": 0.05, "pre_nms_top_n": 1000, "nms_thresh": 0.4, "detections_per_img": 100} | options
    return DensePostProcessor(BoxCoder((1.0, 1.0, 1.0, 1.0)).decode, num_classes=2, **options)


def scene(logits):
    """Make one level of three adjacent anchors and two classes: logits (3, 2)."""
    anchors = torch.tensor([[0.0, 0, 9, 9], [20.0, 0, 29, 9], [21.0, 0, 30, 9]])
    return [anchors], ([torch.tensor(logits).T.reshape(1, 2, 1, 3)], [torch.zeros(1, 4, 1, 3)]), [(10, 40)]


def test_labels_start_at_one_and_nms_is_per_class():
    (found,) = post_processor()(*scene([[2.0, 1.5], [1.0, -9], [-9, 0.5]]))
    assert found.get_field("labels").tolist() == [1, 2, 1, 2]
    assert found.bbox[:, 0].tolist() == [0, 0, 20, 21]
    expected = torch.tensor([2.0, 1.5, 1.0, 0.5]).sigmoid()
    torch.testing.assert_close(found.get_field("scores"), expected)
    (found,) = post_processor()(*scene([[2.0, -9], [1.0, -9], [0.5, -9]]))
    assert found.bbox[:, 0].tolist() == [0, 20]


def test_limits_on_candidates_and_detections():
    logits = [[2.0, 1.5], [1.0, -9], [-9, 0.5]]
    assert len(post_processor(pre_nms_top_n=3)(*scene(logits))[0]) == 3
    assert len(post_processor(detections_per_img=2)(*scene(logits))[0]) == 2
    assert len(post_processor(detections_per_img=1)(*scene([[2.0, 2.0], [-9, -9], [-9, -9]]))[0]) == 2
    assert len(post_processor(score_thresh=0.5)(*scene([[0.0, 0.1], [-9, -9], [-9, -9]]))[0]) == 1


@pytest.mark.parametrize("off", [0, -1])
def test_limits_of_zero_or_less_are_disabled(off):
    logits = [[2.0, 1.5], [1.0, -9], [0.5, 0.4]]
    assert len(post_processor(nms_thresh=1.0)(*scene(logits))[0]) == 5
    assert len(post_processor(nms_thresh=off)(*scene(logits))[0]) == 5
    assert len(post_processor(pre_nms_top_n=off, nms_thresh=off)(*scene(logits))[0]) == 5
    assert len(post_processor(detections_per_img=off, nms_thresh=off)(*scene(logits))[0]) == 5


def test_initial_head_predicts_the_prior(rng_seed):
    logits, codes = RetinaNetHead(8, 9, 5, num_convs=2, prior_prob=0.02)([torch.zeros(1, 8, 4, 4)])
    assert logits[0].shape == (1, 45, 4, 4) and codes[0].shape == (1, 36, 4, 4)
    torch.testing.assert_close(logits[0].sigmoid(), torch.full((1, 45, 4, 4), 0.02))


@pytest.mark.parametrize("use_c5, channels", [(True, 2048), (False, 256)])
def test_p6_is_computed_from_c5_or_p5(use_c5, channels):
    cfg = defaults.clone()
    cfg.merge_from_list(["MODEL.BACKBONE.CONV_BODY", "R-50-FPN-RETINANET", "MODEL.RESNETS.BACKBONE_OUT_CHANNELS", 256])
    cfg.merge_from_list(["MODEL.RETINANET.USE_C5", use_c5])
    with torch.device("meta"):
        assert build_backbone(cfg).fpn.top_blocks.p6.in_channels == channels


def test_missing_num_classes_is_refused():
    with pytest.raises(ValueError, match="MODEL.RETINANET.NUM_CLASSES"):
        small_model("MODEL.RETINANET.NUM_CLASSES", -1)
