"""Plot speed against accuracy: published results and measurements of this machine."""

from __future__ import annotations

import os
from collections.abc import Sequence

from maskrcnn_benchmark.visual.drawing import overlap
from maskrcnn_benchmark.visual.figure_file import new_figure, save_figure

from .measure import Measurement
from .published import TABLES, Table, published_accuracy
from .report import machine

METRICS = {"box AP": "COCO box AP, %", "mIoU": "VOC 2012 mIoU, %"}
MARKERS = {
    "Faster R-CNN": "o",
    "Faster R-CNN, FPNLite": "v",
    "Mask R-CNN": "s",
    "FCOS": "^",
    "Panoptic FPN": "D",
    "CenterMask": "p",
    "CenterMask-Lite": "<",
    "Panoptic CenterMask": "h",
    "DeepLabV3": "P",
}
OURS = "black"
DPI = 110
FONT = 7.5  # points
MARK = 6  # pixels around a point


def save_plot(measurements: Sequence[Measurement], path: str | os.PathLike) -> None:
    """Write the plot; the extension of `path` is its format.

    A config with a published accuracy is a point at this accuracy and the measured time. Other configs are vertical
    lines at their time.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: matplotlib cannot write this format.
    """
    figure = new_figure(figsize=(15, 8.5), dpi=DPI, layout="constrained")
    axes = dict(zip(METRICS, figure.subplots(1, 2, width_ratios=(3.2, 1)), strict=True))
    colors = {system: f"C{k}" for k, system in enumerate(dict.fromkeys(table.system for table in TABLES))}
    points = [point for table in TABLES for point in _draw_table(axes, table, colors[table.system])]
    points += [_draw_measurement(axes, measurement) for measurement in measurements]
    for metric, drawn in axes.items():
        drawn.set(xscale="log", xlabel="ms per image", ylabel=METRICS[metric])
        drawn.margins(x=0.12)  # room for names at the right edge
        drawn.grid(True, which="both", alpha=0.25)
        drawn.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        drawn.xaxis.set_minor_formatter(lambda value, _: f"{value:g}" if f"{value:e}"[0] in "235" else "")
        drawn.legend(loc="upper center", bbox_to_anchor=(0.5, -0.08), ncols=2, fontsize=8)  # below, so it hides nothing
    here = machine(measurements[0].device)
    where = f"{here['gpu'] or here['cpu']}, {here['threads']} CPU threads"
    figure.suptitle(f"Published results, and in black the measurements of this machine ({where})", fontsize=11)
    figure.draw_without_rendering()  # lays the axes out, so that points have pixel coordinates
    _name_points(points)
    save_figure(figure, path)


def _draw_table(axes: dict, table: Table, color: str) -> list[tuple]:
    """Plot the points of a table; return the points for `_name_points`."""
    drawn = axes[table.metric]
    times, accuracies = [row.milliseconds for row in table.rows], [row.accuracy for row in table.rows]
    label = f"{table.system}: {table.detector} ({table.hardware})"
    drawn.plot(times, accuracies, MARKERS[table.detector], color=color, label=label, alpha=0.8)
    return [(drawn, row.network, row.milliseconds, row.accuracy, color) for row in table.rows]


def _draw_measurement(axes: dict, measurement: Measurement) -> tuple:
    """Plot a measurement; return its point for `_name_points`."""
    published = published_accuracy(measurement.name)
    metric, accuracy = published or ("box AP", None)
    drawn, time = axes[metric], measurement.detect_ms
    if accuracy is None:
        drawn.axvline(time.median, color=OURS, linestyle=":", linewidth=1)
        accuracy = drawn.get_ylim()[0]
    else:
        spread = [[time.median - time.low], [time.high - time.median]]
        drawn.errorbar(time.median, accuracy, xerr=spread, fmt="*", color=OURS, markersize=11)
    return drawn, measurement.name, time.median, accuracy, OURS


def _name_points(points: Sequence[tuple]) -> None:
    """Write a name next to every point, inside the axes and with the least overlap.

    Args:
        points: tuples (axes, name, milliseconds, accuracy, color).
    """
    places = [axes.transData.transform((x, y)) for axes, _, x, y, _ in points]
    taken = [(x - MARK, y - MARK, x + MARK, y + MARK) for x, y in places]
    for (axes, name, x, y, color), (left, bottom) in zip(points, places, strict=True):
        width, height = len(name) * FONT * 0.6 * DPI / 72, FONT * DPI / 72
        corners = [
            (left + dx, bottom + dy) for dy in (MARK, -height / 2, -MARK - height) for dx in (MARK, -MARK - width)
        ]
        boxes = [(a, b, a + width, b + height) for a, b in corners]
        edge = axes.bbox.x1
        best = min(boxes, key=lambda box: (box[2] > edge, sum(overlap(box, other) for other in taken)))
        taken.append(best)
        place = ((best[0] - left) * 72 / DPI, (best[1] - bottom) * 72 / DPI)
        axes.annotate(name, (x, y), xytext=place, textcoords="offset points", fontsize=FONT, color=color)
