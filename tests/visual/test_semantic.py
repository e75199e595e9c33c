import numpy as np

from maskrcnn_benchmark.visual.confusion import CELL, MAX_NAME, draw_confusion
from maskrcnn_benchmark.visual.semantic import draw_semantic


def test_classes_are_tinted_and_background_and_unlabelled_pixels_are_not():
    image = np.full((60, 80, 3), 100, dtype=np.uint8)
    classes = np.zeros((60, 80), dtype=np.uint8)
    classes[:20, :20], classes[30:, 40:] = 1, 255
    before = image.copy()
    drawn = draw_semantic(image, classes, ["background", "cat"])
    assert (image == before).all()
    assert (drawn[2:6, 2:6] != 100).any(axis=2).all()  # beside the name
    assert (drawn[30:, 40:] == 100).all() and (drawn[40:, :40] == 100).all()
    assert (draw_semantic(image, classes, ["sky", "cat"])[40:45, :5] != 100).any(axis=2).all()


def test_a_small_map_is_resized_to_the_image():
    classes = np.array([[0, 1]], dtype=np.uint8)
    drawn = draw_semantic(np.zeros((10, 20, 3), dtype=np.uint8), classes, ["background", "cat"])
    assert (drawn[:, :9] == 0).all() and drawn[:, 12:].any()


def test_confusion_matrix_cells_are_shares_of_rows():
    matrix = np.array([[90, 10, 0], [50, 50, 0], [0, 0, 0]])
    drawn = draw_confusion(matrix, ["ground", "cat", "unicorn"])
    left = drawn.shape[1] - 12 - 2 * CELL
    cells = [drawn[left + row * CELL + 4, left + column * CELL + 4] for row in range(2) for column in range(2)]
    strength = [255 - int(cell[0]) for cell in cells]
    assert strength[0] > strength[2] == strength[3] > strength[1] > 0
    assert draw_confusion(np.zeros((2, 2)), ["a", "b"]).ndim == 3


def test_long_names_are_cut_in_the_confusion_matrix():
    drawn = draw_confusion(np.eye(2), ["ground", "a class with a name that is far longer than the margin is wide"])
    assert drawn.shape[1] <= MAX_NAME + 16 + 2 * CELL + 12
