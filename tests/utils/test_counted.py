"""Counts before plural phrases."""

import pytest

from maskrcnn_benchmark.utils.counted import counted


@pytest.mark.parametrize(
    "phrase, singular",
    [
        ("boxes without area (at most one pixel wide or high)", "box without area (at most one pixel wide or high)"),
        ("boxes that are missing, or not finite", "box that is missing, or not finite"),
        ("crowd regions", "crowd region"),
        ("masks that do not touch their box, replaced by it", "mask that does not touch its box, replaced by it"),
        ("annotation ids used for different annotations", "annotation id used for different annotations"),
        ("classes with boxes in the test data", "class with boxes in the test data"),
        ("truncated images (what is missing is grey)", "truncated image (what is missing is grey)"),
        ("points and lines, which are no objects", "point or line, which is no object"),
        ("images of another size, boxes used as they are", "image of another size, boxes used as they are"),
        ("boxes (2% of all) are below 16 pixels", "box (2% of all) is below 16 pixels"),
        ("run lengths written as a polygon", "run lengths written as a polygon"),
    ],
)
def test_one_is_singular_and_more_are_not(phrase, singular):
    assert counted(1, phrase) == f"1 {singular}"
    assert counted(0, phrase) == f"0 {phrase}" and counted(1200, phrase) == f"1,200 {phrase}"
