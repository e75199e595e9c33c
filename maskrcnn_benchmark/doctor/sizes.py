"""Findings about object sizes in the network input: small objects, levels, and anchors.

Shapes: B boxes, A anchors.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

from maskrcnn_benchmark.doctor.findings import Finding
from maskrcnn_benchmark.doctor.network import Anchors, Levels, NetworkInput
from maskrcnn_benchmark.doctor.splits import Split

# Objects are hard to detect below this square root of the area, in pixels of the network input.
SMALL = 16
# Minimum share of such boxes for a warning.
MANY_SMALL = 0.2
# Minimum share of boxes narrower than FCOS's finest stride for a warning.
MANY_LOST = 0.01
# IoU that every box should have with the best-shaped anchor.
ANCHOR_IOU = 0.5
# Minimum share of boxes below this IoU for a warning.
MANY_UNCOVERED = 0.05
# Minimum reduction of this share for which other anchors are proposed.
GAIN = 0.02
# Edges of the ranges of sizes in summaries: square roots of areas in pixels.
EDGES = (16, 32, 64, 128, 256, 512)


def input_sides(split: Split, network_input: NetworkInput | None) -> np.ndarray:
    """Return (B, 2) float64 width and height of the boxes in pixels of the network input; None keeps the image's."""
    if network_input is None:
        return split.sides
    return split.sides * network_input.factors(split.dataset.image_sizes)[split.table.image_index]


def size_counts(sides: np.ndarray) -> dict[str, int]:
    """Count boxes by range of sizes."""
    places = np.searchsorted(EDGES, np.sqrt(sides.prod(axis=1)), side="right")
    counts = np.bincount(places, minlength=len(EDGES) + 1).tolist()
    names = [f"<{EDGES[0]} px", *(f"{a}-{b}" for a, b in zip(EDGES, EDGES[1:], strict=False)), f">={EDGES[-1]}"]
    return dict(zip(names, counts, strict=True))


def size_findings(
    split: Split, sides: np.ndarray, network_input: NetworkInput, levels: Levels | None, stride: int | None
) -> Iterator[Finding]:
    """Yield findings about small boxes, boxes narrower than FCOS's finest stride, and the boxes of each level.

    Args:
        split: split with a table.
        sides: (B, 2) width and height of its boxes in pixels of the network input.
        network_input: how its images are resized.
        levels: levels of the detector, or None.
        stride: FCOS's finest stride in pixels, or None.
    """
    if not len(sides):
        return
    side = np.sqrt(sides.prod(axis=1))
    small = side < SMALL
    if small.mean() >= MANY_SMALL:
        order = np.flatnonzero(small)[np.argsort(side[small], kind="stable")]
        size, limit = network_input.resize.min_size[0], network_input.resize.max_size
        title = (
            f"boxes ({small.mean():.0%} of all) are below {SMALL} pixels at this size ({size} on the short side, at "
            f"most {limit} on the long one)"
        )
        maximum = "INPUT.MAX_SIZE_TRAIN" if split.role == "train" else "INPUT.MAX_SIZE_TEST"
        remedy = (
            f"Raise {network_input.key} and {maximum}, or cut images into tiles (tools/predict.py --tiles predicts so)."
        )
        examples = split.examples(order, lambda row: _wide(sides[row]))
        yield Finding("small-boxes", "warning", title, (split.name,), int(small.sum()), examples, remedy)
    if stride is not None and (sides.min(axis=1) < stride).mean() >= MANY_LOST:
        narrow = sides.min(axis=1) < stride
        order = np.flatnonzero(narrow)[np.argsort(sides[narrow].min(axis=1), kind="stable")]
        title = (
            f"boxes ({narrow.mean():.1%} of all) are narrower than FCOS's finest stride of {stride} pixels; those "
            "between two rows or columns of locations are never trained on"
        )
        examples = split.examples(order, lambda row: _wide(sides[row]))
        remedy = f"Raise {network_input.key}."
        yield Finding("below-stride", "warning", title, (split.name,), int(narrow.sum()), examples, remedy)
    if levels is not None:
        counts = np.bincount(levels.assign(sides), minlength=len(levels.names))
        shares = ", ".join(f"{name} {count / len(sides):.0%}" for name, count in zip(levels.names, counts, strict=True))
        yield Finding("levels", "note", f"boxes by level: {shares}; by {levels.how}", (split.name,))


def anchor_findings(split: Split, sides: np.ndarray, anchors: Anchors) -> Iterator[Finding]:
    """Yield the share of boxes without an anchor of a similar shape, and better anchors if there are some.

    The IoU compares shapes: box and anchor share their center.

    Args:
        split: split with a table.
        sides: (B, 2) width and height of its boxes in pixels of the network input.
        anchors: anchors of the detector.
    """
    if not len(sides):
        return
    best = best_ious(sides, anchors.sides)
    lacking = best < ANCHOR_IOU
    share = lacking.mean()
    if share < MANY_UNCOVERED:
        title = f"{1 - share:.1%} of the boxes have an anchor with an IoU of {ANCHOR_IOU} or more, in terms of shape"
        yield Finding("anchors", "note", title, (split.name,))
        return
    order = np.flatnonzero(lacking)[np.argsort(best[lacking], kind="stable")]
    sizes, ratios, proposed = propose_anchors(sides, anchors)
    if proposed <= share - GAIN:
        keys = f"{anchors.sizes_key} {sizes} and {anchors.ratios_key} {ratios}"
        remedy = f"{keys} would leave {proposed:.1%} of the boxes."
    else:
        remedy = f"Other {anchors.sizes_key} and {anchors.ratios_key} hardly help: the shapes vary too much."
    title = f"boxes ({share:.1%} of all) have no anchor with an IoU of {ANCHOR_IOU} or more, in terms of shape"
    examples = split.examples(order, lambda row: f"{_wide(sides[row])}, best IoU {best[row]:.2f}")
    yield Finding("anchors", "warning", title, (split.name,), int(lacking.sum()), examples, remedy)


def best_ious(sides: np.ndarray, anchors: np.ndarray) -> np.ndarray:
    """Return (B,) the highest IoU of each box with an anchor of the same center.

    Args:
        sides: (B, 2) width, height of the boxes.
        anchors: (A, 2) width, height.
    """
    areas, best = sides.prod(axis=1), np.zeros(len(sides))
    for anchor in anchors:
        common = np.minimum(sides, anchor).prod(axis=1)
        np.maximum(best, common / (areas + anchor.prod() - common), out=best)
    return best


def propose_anchors(sides: np.ndarray, anchors: Anchors) -> tuple[tuple, tuple, float]:
    """Return sizes and ratios, as many as the detector has, that leave the fewest boxes without a similar anchor.

    Candidates for sizes are the current ones, these scaled down, log-spaced sizes between quantiles of the boxes, and
    cluster centers. Candidates for ratios are the current ones and cluster centers. Boxes are clustered by the
    logarithm of their size (square root of the area) or ratio (height / width).

    Returns:
        Sizes, ratios, and the share of boxes whose best IoU is below ANCHOR_IOU with them.
    """
    sizes, shapes = np.log(sides.prod(axis=1)) / 2, np.log(sides[:, 1] / sides[:, 0])
    count = len(anchors.sizes)
    size_candidates = [np.array(anchors.sizes) * factor for factor in (1, 0.75, 0.5, 0.25)]
    size_candidates += [np.exp(np.linspace(*np.quantile(sizes, tails), count)) for tails in ((0.02, 0.98), (0.1, 0.9))]
    size_candidates.append(_centers(sizes, count))
    ratio_candidates = [np.array(anchors.ratios), _centers(shapes, len(anchors.ratios))]
    found = []
    for size, ratio in itertools.product(size_candidates, ratio_candidates):
        values = tuple(max(1, round(each)) for each in size), tuple(round(float(each), 2) for each in ratio)
        found.append((float((best_ious(sides, anchors.remake(*values)) < ANCHOR_IOU).mean()), *values))
    share, *values = min(found)
    return *values, share


def _centers(values: np.ndarray, count: int, steps: int = 20) -> np.ndarray:
    """Return the exponentials of `count` ascending cluster centers of (B,) values, by Lloyd's algorithm."""
    low, high = np.quantile(values, [0.01, 0.99])
    centers = np.linspace(low, high, 2 * count + 1)[1::2]
    ordered = np.sort(values)
    sums = np.concatenate([[0.0], np.cumsum(ordered)])
    for _ in range(steps):
        bounds = np.searchsorted(ordered, (centers[1:] + centers[:-1]) / 2)
        first, last = np.concatenate([[0], bounds]), np.concatenate([bounds, [len(ordered)]])
        filled = last > first
        centers[filled] = (sums[last] - sums[first])[filled] / (last - first)[filled]
    return np.exp(centers)


def _wide(sides: np.ndarray) -> str:
    return f"{sides[0]:.0f} x {sides[1]:.0f} px in the network input"
