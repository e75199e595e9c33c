import numpy as np

from maskrcnn_benchmark.structures.keypoint import PersonKeypoints
from maskrcnn_benchmark.visual.keypoints import draw_keypoints
from maskrcnn_benchmark.visual.palette import label_colors


def person(**seen):
    points = np.zeros((1, 17, 3), dtype=np.float32)
    for name, (x, y) in seen.items():
        points[0, PersonKeypoints.NAMES.index(name)] = (x, y, 2)
    return points


def test_a_person_has_lines_and_a_trunk():
    image = np.zeros((100, 100, 3), np.uint8)
    seen = {"left_shoulder": (30, 30), "right_shoulder": (70, 30), "left_hip": (30, 80), "right_hip": (70, 80)}
    drawn = draw_keypoints(image, person(**seen))
    assert (image == 0).all()
    assert drawn[50:60, 50].any(axis=1).all(), "from between the shoulders to between the hips"
    assert drawn[30, 45:55].any(axis=1).all(), "from shoulder to shoulder"
    assert not drawn[:25].any(), "no line to a nose that is not seen"
    assert draw_keypoints(image, person(**seen, nose=(50, 5)))[15:20, 50].any(axis=1).all()


def test_low_scores_and_unseen_points_are_left_out():
    image = np.zeros((50, 50, 3), np.uint8)
    points = np.array([[[10, 10, 1], [30, 10, 1], [10, 30, 0]]], dtype=np.float32)
    drawn = draw_keypoints(image, points, np.array([[3.0, 1.0, 9.0]]))
    assert (drawn[10, 10] == label_colors([1])[0]).all() and not drawn[10, 30].any() and not drawn[30, 10].any()
    joined = draw_keypoints(image, points, connections=[(0, 1), (0, 2)])
    assert joined[10, 20].any() and not joined[20, 10].any()
    assert (draw_keypoints(image, points[:0]) == image).all()
