"""Panoptic quality computed by hand, and compared with the definition, pair by pair."""

import numpy as np
import pytest

from maskrcnn_benchmark.evaluation.panoptic_quality import PanopticQuality

CLASSES = 4


def quality_of(*images):
    quality = PanopticQuality(CLASSES)
    for truth, truth_classes, crowd, found, found_classes in images:
        quality.add(
            np.asarray(truth),
            np.array(truth_classes, dtype=np.int64),
            np.array(crowd, dtype=bool),
            np.asarray(found),
            np.array(found_classes, dtype=np.int64),
        )
    return quality


def by_definition(images):
    """Compute (iou, right, wrong, missed) by class from all pairs, with masks as sets of pixels."""
    iou, right, wrong, missed = np.zeros(CLASSES), *np.zeros((3, CLASSES), dtype=np.int64)
    for truth, truth_classes, crowd, found, found_classes in images:
        void = truth == 0
        matched_truth, matched_found = set(), set()
        for g, label in enumerate(truth_classes, start=1):
            for f, found_label in enumerate(found_classes, start=1):
                if crowd[g - 1] or label != found_label:
                    continue
                both = ((truth == g) & (found == f)).sum()
                either = ((truth == g) | ((found == f) & ~void)).sum()
                if either and both / either > 0.5:
                    iou[label] += both / either
                    right[label] += 1
                    matched_truth.add(g)
                    matched_found.add(f)
        for g, label in enumerate(truth_classes, start=1):
            missed[label] += g not in matched_truth and not crowd[g - 1]
        for f, label in enumerate(found_classes, start=1):
            if f in matched_found:
                continue
            free = void.copy()
            for g, truth_label in enumerate(truth_classes, start=1):
                if crowd[g - 1] and truth_label == label:
                    free |= truth == g
            mask = found == f
            wrong[label] += not (mask & free).sum() / max(mask.sum(), 1) > 0.5
    return iou, right, wrong, missed


def random_image():
    """Return ground truth of rectangles and a partly similar prediction, with at most one crowd per class."""
    maps, classes = [], []
    truth = np.zeros((24, 30), dtype=np.int64)
    labels = np.random.randint(0, CLASSES, 6)
    for number in range(1, 7):
        y, x = np.random.randint(0, 20, 2)
        truth[y : y + np.random.randint(2, 14), x : x + np.random.randint(2, 14)] = number
    crowd = np.random.rand(6) < 0.3
    for label in range(CLASSES):
        crowd[np.flatnonzero(crowd & (labels == label))[1:]] = False
    found = np.roll(truth, np.random.randint(0, 3, 2), axis=(0, 1))
    found_labels = labels.copy()
    found_labels[np.random.randint(6)] = np.random.randint(CLASSES)
    maps, classes = found.copy(), found_labels
    hidden = np.random.randint(1, 7)
    maps[maps == hidden] = 0
    maps[np.random.rand(24, 30) < 0.1] = hidden
    return truth, labels, crowd, maps, classes


def test_random_maps_agree_with_the_definition(rng_seed):
    images = [random_image() for _ in range(60)]
    quality = quality_of(*images)
    iou, right, wrong, missed = by_definition(images)
    np.testing.assert_allclose(quality.iou, iou, rtol=1e-12)
    assert quality.right.tolist() == right.tolist() and right.sum() > 20
    assert quality.wrong.tolist() == wrong.tolist() and wrong.sum() > 20
    assert quality.missed.tolist() == missed.tolist() and missed.sum() > 20


def test_ground_truth_against_itself_is_perfect(rng_seed):
    truth, labels, crowd, _, _ = random_image()
    present = np.unique(truth)[1:]
    truth = np.searchsorted(present, truth) + (truth > 0)
    labels, crowd = labels[present - 1], crowd[present - 1]
    crowd[0] = False
    figures = quality_of((truth, labels, crowd, truth, labels)).figures(np.arange(CLASSES) < 2)
    assert {figures[name] for name in ("PQ", "SQ", "RQ")} == {1.0}


def test_quality_by_hand():
    # class 0: a segment of 4 pixels, predicted with 3 of them and 1 other: IoU 3/5; class 1: one missed, one false
    truth = [[1, 1, 0, 0], [1, 1, 2, 2], [3, 3, 3, 3]]
    found = [[1, 1, 0, 0], [1, 3, 1, 1], [2, 2, 2, 2]]
    quality = quality_of((truth, [0, 1, 2], [False] * 3, found, [0, 2, 3]))
    np.testing.assert_allclose(quality.per_class()["PQ"][[0, 2]], [0, 1])
    # 3 of 4 pixels predicted, 2 extra: 3 / 6 does not exceed 0.5
    assert quality.right.tolist() == [0, 0, 1, 0]
    assert quality.wrong.tolist() == [1, 0, 0, 1] and quality.missed.tolist() == [1, 1, 0, 0]
    figures = quality.figures(np.array([True, True, False, False]))
    assert figures["PQ"] == 1 / 4 and figures["PQ_th"] == 0 and figures["PQ_st"] == 1 / 2
    assert figures["SQ"] == 1 / 4 and figures["RQ_st"] == 1 / 2


def test_void_pixels_are_excluded_from_the_union():
    truth = [[1, 1, 1, 0, 0, 0, 0, 0]]
    found = [[1, 1, 0, 1, 1, 1, 1, 0]]
    quality = quality_of((truth, [0], [False], found, [0]))
    assert quality.right[0] == 1 and quality.iou[0] == 2 / 3


def test_a_segment_mostly_on_void_or_crowd_is_not_a_false_positive():
    truth = [[0, 0, 1, 1, 1, 1, 2, 2]]
    found = [[1, 1, 1, 2, 2, 3, 3, 4]]
    crowd = [True, False]
    # 1 has 2 of 3 pixels on void; 2 lies on a crowd of its class; 3 has half on it; 4 has another class
    quality = quality_of((truth, [0, 1], crowd, found, [3, 0, 0, 0]))
    assert quality.wrong.tolist() == [2, 0, 0, 0]
    assert quality.missed.tolist() == [0, 1, 0, 0]
    other_class = quality_of((truth, [0, 1], crowd, found, [3, 2, 0, 0]))
    assert other_class.wrong.tolist() == [2, 0, 1, 0]


def test_classes_without_segments_are_excluded_from_the_means():
    quality = quality_of(([[1, 1]], [2], [False], [[1, 1]], [2]))
    assert np.isnan(quality.per_class()["PQ"]).tolist() == [True, True, False, True]
    figures = quality.figures(np.arange(CLASSES) < 2)
    assert figures["PQ"] == figures["PQ_st"] == 1.0 and figures["PQ_th"] == -1.0


def test_images_without_segments_count():
    quality = quality_of(([[0, 0]], [], [], [[0, 0]], []), ([[1, 1]], [0], [False], [[0, 0]], []))
    assert quality.missed.tolist() == [1, 0, 0, 0]
    assert quality.figures(np.ones(CLASSES, dtype=bool))["PQ"] == 0


def test_maps_of_different_sizes_are_refused():
    with pytest.raises(ValueError, match=r"\(1, 2\), the prediction \(2, 1\)"):
        quality_of(([[0, 0]], [], [], [[0], [0]], []))
