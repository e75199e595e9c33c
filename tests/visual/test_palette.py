import numpy as np
import pytest

from maskrcnn_benchmark.visual.drawing import INK, PAPER
from maskrcnn_benchmark.visual.palette import COLORS, as_seen, class_colors, contrast_ratio, label_colors

# Okabe and Ito's palette for color-blind readers, without black.
OKABE_ITO = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167))
# Linear RGB in deuteranopia and protanopia (Vienot, Brettel, Mollon 1999); the palette was chosen by another model.
VIENOT = (
    ((0.29275, 0.70725, 0), (0.29275, 0.70725, 0), (-0.02234, 0.02234, 1)),
    ((0.11238, 0.88762, 0), (0.11238, 0.88762, 0), (0.00401, -0.00401, 1)),
)
XYZ = np.array(((0.4124564, 0.3575761, 0.1804375), (0.2126729, 0.7151522, 0.0721750), (0.0193339, 0.119192, 0.9503041)))


def closest(points: np.ndarray) -> np.ndarray:
    """Return the smallest distance of two of N points, (V, N, 3) -> (V,)."""
    distances = np.linalg.norm(points[:, :, None] - points[:, None], axis=-1)
    distances[:, np.eye(points.shape[1], dtype=bool)] = np.inf
    return distances.min(axis=(1, 2))


def in_cielab(colors) -> np.ndarray:
    """Return CIELAB coordinates in normal vision, deuteranopia and protanopia, (3, N, 3)."""
    values = np.asarray(colors) / 255
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    seen = np.stack([linear, *(linear @ np.array(matrix).T for matrix in VIENOT)]).clip(0, 1)
    x, y, z = np.moveaxis(np.cbrt(seen @ XYZ.T / XYZ.sum(axis=1)), -1, 0)
    return np.stack((116 * y - 16, 500 * (x - y), 200 * (y - z)), axis=-1)


@pytest.mark.parametrize(
    "count, normal, colour_blind", [(3, 0.4, 0.3), (8, 0.2, 0.14), (20, 0.12, 0.065), (80, 0.05, 0.028)]
)
def test_class_colors_are_far_apart_in_every_vision(count, normal, colour_blind):
    found = closest(as_seen(class_colors(count)))
    assert found[0] >= normal and (found[1:] >= colour_blind).all()


def test_class_colors_are_further_apart_than_a_published_palette():
    ours, published = class_colors(len(OKABE_ITO)), np.array(OKABE_ITO)
    assert (closest(as_seen(ours)) > closest(as_seen(published))).all()
    assert closest(in_cielab(ours)).min() > closest(in_cielab(published)).min()


def test_text_is_readable_on_every_color():
    for color in class_colors():
        assert max(contrast_ratio(color, INK), contrast_ratio(color, PAPER)) >= 4.2


def test_class_colors_do_not_depend_on_the_order_of_calls():
    assert class_colors(8).tolist() == [
        [230, 75, 0], [0, 0, 255], [0, 255, 255], [165, 135, 255],
        [135, 0, 135], [255, 195, 0], [0, 165, 150], [135, 45, 0],
    ]  # fmt: skip
    assert (class_colors()[:40] == class_colors(40)).all() and len(np.unique(class_colors(), axis=0)) == COLORS
    assert label_colors([1, 2, 1 + COLORS]).tolist() == [[230, 75, 0], [0, 0, 255], [230, 75, 0]]
    assert label_colors([]).shape == (0, 3) and label_colors([0]).tolist() == class_colors()[-1:].tolist()
    with pytest.raises(ValueError, match="256 colors, got count 257"):
        class_colors(257)
