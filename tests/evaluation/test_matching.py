import pytest

from maskrcnn_benchmark.evaluation.matching import ScoreThreshold, balancing_score, count_matches


def test_an_object_is_matched_once_and_only_by_its_label(boxlist):
    objects = boxlist((100, 100), [((0, 0, 19, 19), 1, 1.0), ((50, 50, 69, 69), 2, 1.0)])
    twice = boxlist((100, 100), [((0, 0, 19, 19), 1, 0.9), ((1, 0, 20, 19), 1, 0.8)])
    assert count_matches(objects, twice) == 1
    other_label = boxlist((100, 100), [((50, 50, 69, 69), 1, 0.9)])
    assert count_matches(objects, other_label) == 0


def test_the_detection_with_the_highest_score_is_matched_first(boxlist):
    objects = boxlist((100, 100), [((0, 0, 19, 19), 1, 1.0), ((0, 6, 19, 25), 1, 1.0)])
    # the higher score overlaps both objects and matches the second; the other detection overlaps only the first
    detections = boxlist((100, 100), [((0, 0, 19, 16), 1, 0.5), ((0, 4, 19, 23), 1, 0.9)])
    assert count_matches(objects, detections) == 2


def test_overlap_must_reach_the_threshold(boxlist):
    objects = boxlist((100, 100), [((0, 0, 9, 9), 1, 1.0)])
    half = boxlist((100, 100), [((0, 0, 9, 4), 1, 0.5)])  # inclusive IoU 50 / 100
    assert count_matches(objects, half, 0.5) == 1
    assert count_matches(objects, half, 0.51) == 0


def test_empty_detections_and_ground_truth(boxlist):
    empty, one = boxlist((100, 100), []), boxlist((100, 100), [((0, 0, 9, 9), 1, 1.0)])
    assert count_matches(empty, one) == count_matches(one, empty) == count_matches(empty, empty) == 0


def test_balancing_score_has_the_highest_f1(boxlist):
    def boxes(*entries):
        return boxlist((100, 100), [((x, y, x + 9, y + 9), 1, score) for x, y, score in entries])

    truth = boxes((0, 0, 1.0), (20, 0, 1.0), (40, 0, 1.0))
    found = boxes((0, 0, 0.9), (20, 0, 0.7), (60, 0, 0.4), (40, 0, 0.2))
    noise = boxes((0, 20, 0.3), (0, 40, 0.2))
    best = balancing_score([(truth, found), (boxes(), noise), (boxes(), None)])
    assert best == ScoreThreshold(score=pytest.approx(0.7), precision=1.0, recall=2 / 3, f1=0.8)
    # predictions with equal scores are kept or dropped together
    assert balancing_score([(truth, boxes((0, 0, 0.5), (60, 0, 0.5)))]).precision == 0.5
    assert balancing_score([(truth, boxes((60, 0, 0.9)))]) is None
