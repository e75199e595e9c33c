from maskrcnn_benchmark.evaluation.matching import count_matches


def test_an_object_is_found_once_and_only_by_its_label(boxlist):
    objects = boxlist((100, 100), [((0, 0, 19, 19), 1, 1.0), ((50, 50, 69, 69), 2, 1.0)])
    twice = boxlist((100, 100), [((0, 0, 19, 19), 1, 0.9), ((1, 0, 20, 19), 1, 0.8)])
    assert count_matches(objects, twice) == 1
    other_label = boxlist((100, 100), [((50, 50, 69, 69), 1, 0.9)])
    assert count_matches(objects, other_label) == 0


def test_the_surest_detection_chooses_first(boxlist):
    objects = boxlist((100, 100), [((0, 0, 19, 19), 1, 1.0), ((0, 6, 19, 25), 1, 1.0)])
    # the surer one fits both objects and takes the second; the other only fits the first
    detections = boxlist((100, 100), [((0, 0, 19, 16), 1, 0.5), ((0, 4, 19, 23), 1, 0.9)])
    assert count_matches(objects, detections) == 2


def test_overlap_has_to_reach_the_threshold(boxlist):
    objects = boxlist((100, 100), [((0, 0, 9, 9), 1, 1.0)])
    half = boxlist((100, 100), [((0, 0, 9, 4), 1, 0.5)])  # inclusive IoU 50 / 100
    assert count_matches(objects, half, 0.5) == 1
    assert count_matches(objects, half, 0.51) == 0


def test_nothing_against_nothing(boxlist):
    empty, one = boxlist((100, 100), []), boxlist((100, 100), [((0, 0, 9, 9), 1, 1.0)])
    assert count_matches(empty, one) == count_matches(one, empty) == count_matches(empty, empty) == 0
