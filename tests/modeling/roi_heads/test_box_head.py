"""Compare targets, losses and post-processing of the box head with a box-by-box computation."""

import math

import pytest
import torch

from maskrcnn_benchmark.modeling.balanced_positive_negative_sampler import BalancedPositiveNegativeSampler
from maskrcnn_benchmark.modeling.box_coder import BoxCoder
from maskrcnn_benchmark.modeling.matcher import Matcher
from maskrcnn_benchmark.modeling.roi_heads.box_head.inference import PostProcessor
from maskrcnn_benchmark.modeling.roi_heads.box_head.loss import FastRCNNLoss
from maskrcnn_benchmark.structures.bounding_box import BoxList
from maskrcnn_benchmark.structures.boxlist_ops import boxlist_nms, cat_boxlist

SIZE = (200, 150)


def make_loss(batch=1000, fraction=0.25, thresholds=(0.5, 0.5), **options):
    coder = BoxCoder((10.0, 10.0, 5.0, 5.0))
    return FastRCNNLoss(Matcher(*thresholds), BalancedPositiveNegativeSampler(batch, fraction), coder, **options)


def target(boxes, labels):
    boxlist = BoxList(boxes, SIZE)
    boxlist.add_field("labels", torch.tensor(labels, dtype=torch.int64))
    return boxlist


def test_labels_and_codes_are_those_of_the_best_overlap():
    truth = target([[10.0, 10, 49, 49], [100, 50, 139, 89]], [3, 7])
    proposals = BoxList([[12.0, 10, 51, 49], [0, 0, 9, 9], [100, 50, 139, 89], [100, 50, 139, 69]], SIZE)
    proposals.add_field("objectness", torch.arange(4.0))
    (drawn,) = make_loss(fraction=1.0).subsample([proposals], [truth])
    assert drawn.get_field("labels").tolist() == [3, 0, 7, 7]  # the last one overlaps by exactly a half
    assert drawn.get_field("objectness").tolist() == [0, 1, 2, 3]
    codes = drawn.get_field("regression_targets")
    torch.testing.assert_close(codes[0], torch.tensor([-0.5, 0, 0, 0]))
    torch.testing.assert_close(codes[3], torch.tensor([0, 5.0, 0, 5 * math.log(2)]))
    assert proposals.fields() == ["objectness"], "the caller's list must not change"


def test_sample_is_limited_and_excludes_overlaps_between_the_thresholds(rng_seed):
    truth = target([[10.0, 10, 49, 49]], [1])
    near = [[10.0 + i % 5, 10, 49 + i % 5, 49] for i in range(40)]
    between = [[10.0, 10, 49, 27]] * 20
    far = [[120.0, 100, 150, 140]] * 100
    proposals = BoxList(near + between + far, SIZE)
    (drawn,) = make_loss(batch=32, thresholds=(0.5, 0.3)).subsample([proposals], [truth])
    labels = drawn.get_field("labels")
    assert len(drawn) == 32 and (labels == 1).sum() == 8 and (labels == 0).sum() == 24


def test_image_without_objects_has_background_only():
    proposals = BoxList([[0.0, 0, 9, 9], [5, 5, 50, 50]], SIZE)
    (drawn,) = make_loss().subsample([proposals], [target([], [])])
    assert drawn.get_field("labels").tolist() == [0, 0]


@pytest.mark.parametrize("class_agnostic", [False, True])
def test_losses_are_the_forks(class_agnostic, rng_seed):
    loss = make_loss(class_agnostic=class_agnostic)
    labels = torch.tensor([2, 0, 1, 0, 2])
    codes = torch.randn(5, 4)
    regions = BoxList(torch.zeros(5, 4), SIZE)
    regions.add_field("labels", labels)
    regions.add_field("regression_targets", codes)
    logits = torch.randn(5, 3)
    regression = torch.randn(5, 8 if class_agnostic else 12) * 3
    classifier, box = loss(logits, regression, [regions[:2], regions[2:]])
    expected_class = sum(-logits[i].log_softmax(0)[label] for i, label in enumerate(labels)) / 5
    expected_box = 0.0
    for i, label in enumerate(labels.tolist()):
        column = 1 if class_agnostic else label
        for j in range(4 if label else 0):
            d = abs(regression[i, 4 * column + j] - codes[i, j]).item()
            expected_box += 0.5 * d * d if d < 1 else d - 0.5
    assert classifier.item() == pytest.approx(expected_class.item(), rel=1e-5)
    assert box.item() == pytest.approx(expected_box / 5, rel=1e-5)


@pytest.mark.parametrize("count", [0, 3])
def test_losses_without_positives_are_finite_and_keep_the_graph(count):
    regions = BoxList(torch.rand(count, 4), SIZE)
    regions.add_field("labels", torch.zeros(count, dtype=torch.int64))
    regions.add_field("regression_targets", torch.zeros(count, 4))
    logits, regression = torch.randn(count, 3, requires_grad=True), torch.randn(count, 12, requires_grad=True)
    classifier, box = make_loss()(logits, regression, [regions])
    (classifier + box).backward()
    assert box == 0 and classifier.isfinite() and logits.grad is not None and regression.grad is not None


def random_case(images=2, regions=60, classes=6, agnostic=False):
    boxes = []
    for _ in range(images):
        corner = torch.rand(regions, 2) * 100
        boxes.append(BoxList(torch.cat((corner, corner + 20 + torch.rand(regions, 2) * 60), dim=1), SIZE))
    logits = torch.randn(images * regions, classes) * 3
    return logits, torch.randn(images * regions, 8 if agnostic else 4 * classes) * 0.7, boxes


@pytest.mark.parametrize("agnostic", [False, True])
@pytest.mark.parametrize("nms, top", [(0.5, 100), (0.3, 7), (0.0, 0)])
def test_detections_equal_the_forks_procedure(agnostic, nms, top, rng_seed):
    logits, regression, boxes = random_case(agnostic=agnostic)
    coder = BoxCoder((10.0, 10.0, 5.0, 5.0))
    post = PostProcessor(0.05, nms, top, coder, agnostic)
    for image, found in enumerate(post((logits, regression), boxes)):
        rows = slice(60 * image, 60 * image + 60)
        scores = logits[rows].softmax(1)
        per_class = []
        for label in range(1, 6):
            columns = slice(4, 8) if agnostic else slice(4 * label, 4 * label + 4)
            decoded = coder.decode(regression[rows, columns], boxes[image].bbox)
            index = (scores[:, label] > 0.05).nonzero().squeeze(1)
            one = BoxList(decoded[index], SIZE).clip_to_image(remove_empty=False)
            one.add_field("scores", scores[index, label])
            one = boxlist_nms(one, nms)
            one.add_field("labels", torch.full((len(one),), label))
            per_class.append(one)
        expected = cat_boxlist(per_class)
        if 0 < top < len(expected):
            kept = expected.get_field("scores").sort(descending=True).values[top - 1]
            expected = expected[(expected.get_field("scores") >= kept).nonzero().squeeze(1)]
        assert found.size == SIZE and found.get_field("labels").tolist() == expected.get_field("labels").tolist()
        torch.testing.assert_close(found.bbox, expected.bbox)
        torch.testing.assert_close(found.get_field("scores"), expected.get_field("scores"))


def test_detections_that_tie_with_the_last_one_are_kept():
    boxes = [BoxList([[20.0 * i, 0, 20.0 * i + 10, 10] for i in range(6)], SIZE)]
    logits = torch.tensor([[0.0, 2.0]] + [[0.0, 1.0]] * 5)
    (found,) = PostProcessor(0.05, 0.5, 3)((logits, torch.zeros(6, 8)), boxes)
    assert len(found) == 6


def test_nms_runs_at_the_output_sizes():
    """The extra pixel of inclusive boxes matters less for larger boxes."""
    boxes = [BoxList([[10.0, 10, 12, 12], [11, 11, 12, 12]], SIZE)]
    outputs = (torch.tensor([[0.0, 2.0], [0.0, 1.0]]), torch.zeros(2, 8))
    for scale, count in ((1, 1), (4, 2)):
        # overlaps of 4 / 9 and of 25 / 81
        post = PostProcessor(0.05, 0.4)
        (found,) = post(outputs, boxes, [(SIZE[0] * scale, SIZE[1] * scale)])
        assert found.bbox.tolist() == boxes[0].bbox[:count].tolist() and found.size == SIZE


@pytest.mark.parametrize("regions", [0, 4])
def test_no_candidates_return_empty_detections(regions):
    boxes = [BoxList(torch.rand(regions, 4), SIZE), BoxList(torch.rand(0, 4), SIZE)]
    logits = torch.tensor([[9.0, 0, 0]]).repeat(regions, 1)
    for found in PostProcessor()((logits, torch.zeros(regions, 12)), boxes):
        assert len(found) == 0 and found.size == SIZE and found.bbox.shape == (0, 4)
        assert found.get_field("scores").shape == (0,) and found.get_field("labels").dtype == torch.int64


def test_candidates_of_augmented_views_skip_nms():
    boxes = [BoxList([[10.0, 10, 30, 30], [11, 11, 30, 30]], SIZE)]
    outputs = (torch.tensor([[0.0, 2.0], [0.0, 1.0]]), torch.zeros(2, 8))
    (found,) = PostProcessor(0.05, 0.5, 100, None, False, True)(outputs, boxes)
    assert found.bbox.tolist() == boxes[0].bbox.tolist() and found.get_field("labels").tolist() == [1, 1]
