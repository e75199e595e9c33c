import numpy as np
import pytest

from maskrcnn_benchmark.evaluation.boundary_iou import BoundaryIoU, boundary


def test_the_boundary_is_a_band_inside_the_contour_and_along_the_border():
    mask = np.zeros((90, 120), dtype=bool)  # diagonal 150, so bands are 3 pixels wide
    mask[:40, 20:80] = True
    expected = mask.copy()
    expected[3:37, 23:77] = False
    assert (boundary(mask) == expected).all()


def test_figures_by_hand():
    truth = np.zeros((90, 120), dtype=np.uint8)
    truth[20:60, 20:80] = 1
    found = np.zeros_like(truth)
    found[20:60, 21:81] = 1  # one pixel to the right
    measure = BoundaryIoU(3)
    measure.add(truth, found)
    band = 40 * 60 - 34 * 54
    # the 3 upper and 3 lower rows of 60 pixels share 59; the 34 other rows share 2 of 3 pixels at each side
    both = 6 * 59 + 34 * 4
    assert measure.class_iou()[1] == pytest.approx(both / (2 * band - both))
    assert np.isnan(measure.class_iou()[2])


def test_a_map_against_itself_is_perfect_and_unlabelled_pixels_do_not_count(rng_seed):
    truth = np.random.randint(0, 3, (8, 8)).astype(np.uint8).repeat(10, axis=0).repeat(10, axis=1)
    truth[:30, :30] = 255
    found = truth.copy()
    found[:30, :30] = 2
    measure = BoundaryIoU(3)
    measure.add(truth, found)
    assert measure.class_iou().tolist() == [1, 1, 1]
    measure.add(truth, None)
    assert measure.class_iou().tolist() == [0.5, 0.5, 0.5]
