import numpy as np
from PIL import Image

from benchmarks.tiles import count_found, make_collage
from maskrcnn_benchmark.engine.prediction import Prediction


def prediction(size, boxes, labels):
    boxes = np.array(boxes, dtype=np.float32).reshape(-1, 4)
    return Prediction(size, boxes, np.ones(len(boxes), np.float32), np.array(labels, dtype=np.int64))


def test_collage_has_rows_of_equal_cells():
    images = [Image.new("RGB", size, (value, 0, 0)) for size, value in (((20, 10), 1), ((10, 12), 2), ((20, 12), 3))]
    collage, corners = make_collage(images, 2)
    assert collage.size == (40, 24) and corners == [(0, 0), (20, 0), (0, 12)]
    assert [collage.getpixel(corner)[0] for corner in corners] == [1, 2, 3]


def test_objects_are_matched_one_to_one_and_others_across_a_seam_are_counted():
    single = [prediction((20, 20), [(1, 1, 9, 9), (1, 1, 9, 10)], [1, 1]), prediction((20, 20), [(2, 2, 8, 8)], [2])]
    whole = prediction(
        (40, 20),
        # one of the two that lie on each other, the second image's with another class, one across the seam
        [(1, 1, 9, 9), (22, 2, 28, 8), (15, 5, 25, 15), (30, 12, 36, 18)],
        [1, 1, 1, 1],
    )
    assert count_found(single, [(0, 0), (20, 0)], whole) == (3, 1, 1)


def test_nothing_found_is_counted():
    nothing = prediction((40, 20), [], [])
    assert count_found([nothing], [(0, 0)], nothing) == (0, 0, 0)
    assert count_found([prediction((20, 20), [(1, 1, 9, 9)], [1])], [(0, 0)], nothing) == (1, 0, 0)
