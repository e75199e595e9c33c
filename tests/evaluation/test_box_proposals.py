import pytest
import torch

from maskrcnn_benchmark.evaluation.box_proposals import greedy_overlaps, proposal_recall
from maskrcnn_benchmark.evaluation.ground_truth import load_ground_truth
from maskrcnn_benchmark.structures.bounding_box import BoxList


def _proposals(boxes, objectness, size=(200, 200)):
    proposals = BoxList(boxes, size)
    proposals.add_field("objectness", torch.tensor(objectness))
    return proposals


def _recall(dataset, predictions):
    return proposal_recall(predictions, dataset, load_ground_truth(dataset.ann_file))


def test_pairs_are_assigned_best_first():
    iou = torch.tensor([[0.9, 0.8], [0.7, 0.1]])
    # box 0 takes proposal 0, so box 1 is left with proposal 1
    assert greedy_overlaps(iou).tolist() == pytest.approx([0.9, 0.1])
    assert greedy_overlaps(iou[:1]).tolist() == pytest.approx([0.9, 0])
    assert greedy_overlaps(iou[:0]).tolist() == [0, 0]


def test_recall_by_area_by_hand(coco_dataset):
    dataset = coco_dataset(
        {1: (200, 200), 2: (200, 200)},
        [
            (1, 1, [0, 0, 20, 20]),  # small, found exactly
            (1, 1, [50, 50, 50, 50]),  # medium, IoU 0.8: 7 of 10 thresholds (0.80 itself is reached)
            (1, 1, [0, 100, 60, 60], {"iscrowd": 1}),
            (2, 1, [0, 0, 150, 100]),  # large, in an image without proposals
        ],
        {1: "thing"},
    )
    predictions = [_proposals([[0, 0, 19, 19], [50, 50, 99, 89]], [0.1, 0.9]), None]
    recall = _recall(dataset, predictions)
    assert recall["ARs@100"] == pytest.approx(1)
    assert recall["ARm@100"] == pytest.approx(0.7)
    assert recall["ARl@100"] == 0
    assert recall["AR@100"] == recall["AR@1000"] == pytest.approx(1.7 / 3)


def test_the_limit_keeps_the_highest_objectness(coco_dataset):
    dataset = coco_dataset({1: (200, 200)}, [(1, 1, [0, 0, 20, 20])], {1: "thing"})
    noise = [[100, 100, 110, 110]] * 100
    low = _recall(dataset, [_proposals([[0, 0, 19, 19], *noise], [0.1] + [0.5] * 100)])
    assert low["AR@100"] == 0 and low["AR@1000"] == 1
    high = _recall(dataset, [_proposals([[0, 0, 19, 19], *noise], [0.9] + [0.5] * 100)])
    assert high["AR@100"] == 1


def test_proposals_are_resized_to_the_original_image(coco_dataset):
    dataset = coco_dataset({1: (200, 200)}, [(1, 1, [0, 0, 21, 21])], {1: "thing"})
    assert _recall(dataset, [_proposals([[0, 0, 40, 40]], [0.5], (400, 400))])["AR@100"] == 1


def test_nothing_to_find_is_not_computed(coco_dataset):
    recall = _recall(coco_dataset({1: (200, 200)}, [], {1: "thing"}), [_proposals([[0, 0, 9, 9]], [0.5])])
    assert set(recall.values()) == {-1}
