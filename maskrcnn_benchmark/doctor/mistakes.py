"""Find annotations that a trained model contradicts, the most confident contradictions first.

Shapes: G annotated boxes and P predictions of an image.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from maskrcnn_benchmark.doctor.findings import Example, Finding
from maskrcnn_benchmark.doctor.splits import Split
from maskrcnn_benchmark.engine.progress import ProgressBar
from maskrcnn_benchmark.structures.bounding_box import TO_REMOVE

# Least score of a prediction that contradicts an annotation.
CONFIDENT = 0.6
# Least score of a prediction that confirms one.
DOUBTFUL = 0.05
# Least IoU of a prediction of another class with the annotated box that it contradicts.
SAME_PLACE = 0.7
# Least IoU of a prediction that confirms a box or its class, and of one that is not a missing object.
CONFIRMS = 0.5
NEAR = 0.3


class NoCommonClassError(ValueError):
    """Model and dataset have no class in common."""


@dataclass
class Contradictions:
    """What a model says against the annotations of a dataset.

    Attributes:
        other_class: (score, row of the box, name of the predicted class, predicted box) each.
        missing: (score, index of the image, name, predicted box) each.
        unfound: (area as a share of the image, row of the box) each.
    """

    other_class: list[tuple] = field(default_factory=list)
    missing: list[tuple] = field(default_factory=list)
    unfound: list[tuple] = field(default_factory=list)


def mistake_findings(split: Split, predictor) -> Iterator[Finding]:
    """Yield boxes whose class a model contradicts, objects without a box, and boxes that it does not find.

    Args:
        split: with boxes.
        predictor: a Predictor. Classes correspond by name; predictions of classes that the dataset lacks are ignored.

    Raises:
        NoCommonClassError: model and dataset have no class in common.
    """
    found = contradictions(split, predictor)
    names, table = split.class_names, split.table
    if found.other_class:
        ordered = sorted(found.other_class, key=lambda each: -each[0])
        examples = [
            replace(example, boxes=(*example.boxes, box))
            for example, (*_, box) in zip(
                split.examples(
                    [row for _, row, _, _ in ordered],
                    lambda row, by_row={row: (name, score) for score, row, name, _ in ordered}: (
                        f"annotated {names[table.labels[row] - 1]}, predicted {by_row[row][0]} {by_row[row][1]:.2f}"
                    ),
                ),
                ordered,
                strict=False,
            )
        ]
        title = "boxes that are of another class, as the model is sure"
        remedy = "Look at the images with the highest scores first, and correct the class."
        yield Finding("label-mistake", "warning", title, (split.name,), len(ordered), examples, remedy)
    if found.missing:
        ordered = sorted(found.missing, key=lambda each: -each[0])
        examples = [
            Example(split.name, table.image_ids[image], note=f"predicted {name} {score:.2f}", boxes=(box,), image=image)
            for score, image, name, box in ordered
        ]
        title = "objects without a box, of which the model is sure"
        remedy = "Annotate them, or mark the region iscrowd: 1: training punishes the model for finding them."
        yield Finding("missing-box", "warning", title, (split.name,), len(ordered), examples, remedy)
    if found.unfound:
        ordered = sorted(found.unfound, key=lambda each: -each[0])
        examples = split.examples(
            [row for _, row in ordered], lambda row: f"annotated {names[table.labels[row] - 1]}, nothing found there"
        )
        title = "boxes where the model finds nothing"
        remedy = "Look at the large ones first: is there an object, and does the box fit?"
        yield Finding("unfound-box", "note", title, (split.name,), len(ordered), examples, remedy)


def contradictions(split: Split, predictor) -> Contradictions:
    """Predict all images of a split and compare the predictions with the annotations."""
    labels = _labels_by_model_label(split, predictor.class_names)
    crowd = _crowd_boxes(split)
    table, found = split.table, Contradictions()
    offsets = np.searchsorted(table.image_index, np.arange(len(split.dataset) + 1))
    progress = ProgressBar(len(split.dataset), unit="image")
    images = (split.read_image(index) for index in range(len(split.dataset)))
    for index, prediction in enumerate(predictor.stream(images)):
        boxes = np.array(prediction.boxes, dtype=np.float64).reshape(-1, 4)
        boxes[:, 2:] += prediction.box_offset - TO_REMOVE
        of_dataset = np.array([labels.get(int(label), 0) for label in prediction.labels], dtype=np.int64)
        known = of_dataset > 0
        rows = np.arange(offsets[index], offsets[index + 1])
        _compare(found, split, index, rows, boxes[known], of_dataset[known], prediction.scores[known], crowd.get(index))
        progress.advance()
    progress.close()
    return found


def _compare(found: Contradictions, split: Split, index: int, rows, boxes, labels, scores, crowd) -> None:
    """Add the contradictions of one image.

    Args:
        rows: (G,) indices of its boxes.
        boxes, labels, scores: (P, 4) inclusive corners, (P,) labels of the dataset, (P,) of the predictions.
        crowd: (R, 4) its crowd regions, or None.
    """
    table = split.table
    ious = pairwise_iou(table.boxes[rows].astype(np.float64), boxes)
    same_class = table.labels[rows][:, None] == labels[None]
    for place, row in enumerate(rows.tolist()):
        if not ((ious[place] >= NEAR) & (scores >= DOUBTFUL)).any():
            found.unfound.append((_area(table.boxes[row]) / split.dataset.image_sizes[index].prod(), row))
            continue
        against = np.where((ious[place] >= SAME_PLACE) & ~same_class[place], scores, 0)
        best = int(against.argmax())
        own = np.where((ious[place] >= CONFIRMS) & same_class[place], scores, 0).max()
        # a prediction that fits another annotated box of its class says nothing about this one
        explained = ((ious[:, best] >= CONFIRMS) & same_class[:, best]).any()
        if against[best] >= CONFIDENT and own < against[best] / 2 and not explained:
            name = split.class_names[labels[best] - 1]
            found.other_class.append((float(against[best]), row, name, tuple(boxes[best].tolist())))
    for k in np.flatnonzero(scores >= CONFIDENT).tolist():
        if len(rows) and ious[:, k].max() >= NEAR or crowd is not None and _inside(boxes[k], crowd):
            continue
        name = split.class_names[labels[k] - 1]
        found.missing.append((float(scores[k]), index, name, tuple(boxes[k].tolist())))


def pairwise_iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return (G, P) the IoU of boxes (G, 4) and (P, 4) with inclusive corners."""
    low, high = np.maximum(a[:, None, :2], b[None, :, :2]), np.minimum(a[:, None, 2:], b[None, :, 2:])
    common = np.clip(high - low + 1, 0, None).prod(axis=2)
    areas = [(each[:, 2:] - each[:, :2] + 1).prod(axis=1) for each in (a, b)]
    return common / np.maximum(areas[0][:, None] + areas[1][None] - common, 1e-9)


def _area(box: np.ndarray) -> float:
    return float((box[2] - box[0] + 1) * (box[3] - box[1] + 1))


def _inside(box: np.ndarray, crowd: np.ndarray) -> bool:
    """Return whether half of the box is in one of the crowd regions."""
    low, high = np.maximum(crowd[:, :2], box[:2]), np.minimum(crowd[:, 2:], box[2:])
    return bool((np.clip(high - low + 1, 0, None).prod(axis=1) >= 0.5 * _area(box)).any())


def _crowd_boxes(split: Split) -> dict[int, np.ndarray]:
    """Return the crowd regions, (R, 4) inclusive corners, by index of the image."""
    regions: dict[int, list] = {}
    given = split.given
    for row in np.flatnonzero(given.crowd).tolist():
        index = split.image_places.get(given.image_ids[given.image_index[row]])
        if index is not None:
            regions.setdefault(index, []).append(given.boxes[row])
    return {index: np.array(boxes, dtype=np.float64) for index, boxes in regions.items()}


def _labels_by_model_label(split: Split, class_names) -> Mapping[int, int]:
    """Return the dataset's label by the model's, for classes with the same name."""
    of_dataset = {name: label for label, name in enumerate(split.class_names, start=1)}
    labels = {label: of_dataset[name] for label, name in enumerate(class_names, start=1) if name in of_dataset}
    if not labels:
        raise NoCommonClassError(
            f"the model of --weights has none of the classes of {split.name}: its classes are "
            f"{', '.join(class_names) or 'unnamed'}, those of the dataset {', '.join(split.class_names)}"
        )
    return labels
