"""Find annotations that a trained model contradicts, those with the highest loss first.

The predictions of an image are assigned to its annotations one to one: first those of the same class that fit, then
what is left, by confidence. A prediction that is left and confident contradicts the annotation in its place, or the
absence of one.

The loss of an annotated box is -log of the probability that the model gives to it: the highest product of score and IoU
among the predictions of its class. The loss of a prediction without a box is -log(1 - score). If a prediction
contradicts a box, their losses are added.

Shapes: G annotated boxes and P predictions of an image.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from maskrcnn_benchmark.checkpoint.checkpointer import DetectronCheckpointer
from maskrcnn_benchmark.data.label_space import num_classes_keys
from maskrcnn_benchmark.doctor.findings import MOST, Example, Finding
from maskrcnn_benchmark.doctor.splits import Split
from maskrcnn_benchmark.engine.predictor import Predictor
from maskrcnn_benchmark.engine.progress import ProgressBar
from maskrcnn_benchmark.structures.bounding_box import TO_REMOVE
from maskrcnn_benchmark.structures.box_arrays import areas, intersections, pairwise_iou

# Minimum score of a prediction that contradicts an annotation.
CONFIDENT = 0.6
# Minimum IoU of a prediction of another class with the annotated box that it contradicts.
SAME_PLACE = 0.6
# Minimum score and IoU of a prediction that confirms a box, whatever else is predicted there.
CONFIRMS = 0.3
FITS = 0.5
# Minimum IoU of a prediction of the same class with the box that it marks as misplaced.
OVERLAPS = 0.15
# Minimum IoU of any prediction with a box that counts as found.
NEAR = 0.3
# Lower bound of probabilities, which limits the loss.
LEAST = 0.01
# Minimum loss of a reported box that no prediction contradicts: a probability of 0.2.
HIGH_LOSS = 1.6


class NoCommonClassError(ValueError):
    """Model and dataset have no class in common."""


@dataclass(frozen=True)
class Suspect:
    """An annotated box, or a place without one, that a model contradicts.

    Attributes:
        loss: loss of the model; for a box where it finds nothing, the share of the image that the box covers.
        image: index of the image.
        row: index of the box; None if there is none.
        note: description of the contradiction.
        box: (x1, y1, x2, y2) that the model predicts; None if it predicts nothing.
    """

    loss: float
    image: int
    row: int | None
    note: str
    box: tuple[float, ...] | None = None


@dataclass
class Contradictions:
    """Contradictions between a model and the annotations of a dataset.

    Attributes:
        other_class: boxes of another class according to the model.
        misplaced: boxes that do not fit their object.
        missing: objects without a box.
        unfound: boxes where the model finds nothing.
        high_loss: boxes that the model finds, but with a high loss.
    """

    other_class: list[Suspect] = field(default_factory=list)
    misplaced: list[Suspect] = field(default_factory=list)
    missing: list[Suspect] = field(default_factory=list)
    unfound: list[Suspect] = field(default_factory=list)
    high_loss: list[Suspect] = field(default_factory=list)


# Field of Contradictions: check, severity, title and remedy of the finding.
KINDS = {
    "other_class": (
        "label-mistake",
        "warning",
        "boxes that have another class according to the model",
        "Look at the images with the highest loss first, and correct the class.",
    ),
    "misplaced": (
        "misplaced-box",
        "warning",
        "boxes that do not fit their object according to the model",
        "Look at the images with the highest loss first, and draw the box anew.",
    ),
    "missing": (
        "missing-box",
        "warning",
        "objects without a box according to the model",
        "Annotate them, or mark the region iscrowd: 1: training punishes the model for finding them.",
    ),
    "unfound": (
        "unfound-box",
        "note",
        "boxes where the model finds nothing",
        "Look at the large ones first: is there an object, and does the box fit?",
    ),
    "high_loss": (
        "high-loss-box",
        "note",
        "boxes that the model hardly finds",
        "Look at the ones with the highest loss first: they are hard, or class or place is wrong.",
    ),
}


def load_predictor(cfg, weights: str, splits: Sequence[Split]) -> Predictor:
    """Load a model to check annotations with.

    Args:
        cfg: config of the model; None uses the one in the checkpoint.
        weights: checkpoint of this package or another. If it has no class names, and the model has as many classes as
            the first dataset, the dataset's class names are used.
        splits: the datasets.

    Raises:
        ValueError, OSError: see Predictor.
    """
    names = next((split.class_names for split in splits if split.table is not None and split.class_names), None)
    if cfg is None or names is None or DetectronCheckpointer(cfg, None).read(weights).get("class_names"):
        return Predictor(cfg, weights)
    counts = [cfg.MODEL[node][leaf] for node, leaf in (key.split(".") for key in num_classes_keys(cfg))]
    if not counts or counts[0] not in (-1, len(names) + 1):
        return Predictor(cfg, weights)  # names of a published dataset, or a message that says what is missing
    return Predictor(cfg, weights, class_names=names)


def mistake_findings(split: Split, predictor) -> Iterator[Finding]:
    """Yield one finding per kind of `Contradictions`, with examples of the highest loss first.

    Args:
        split: with boxes.
        predictor: a Predictor. Classes correspond by name; predictions of classes that the dataset lacks are ignored.

    Raises:
        NoCommonClassError: model and dataset have no class in common.
    """
    found = contradictions(split, predictor)
    for name, (check, severity, title, remedy) in KINDS.items():
        suspects = sorted(getattr(found, name), key=lambda each: -each.loss)
        if suspects:
            examples = [_example(split, each) for each in suspects[:MOST]]
            yield Finding(check, severity, title, (split.name,), len(suspects), examples, remedy)


def _example(split: Split, suspect: Suspect) -> Example:
    table, row = split.table, suspect.row
    predicted = () if suspect.box is None else (suspect.box,)
    if row is None:
        return Example(split.name, table.image_ids[suspect.image], None, suspect.note, predicted, suspect.image)
    (example,) = split.examples([row], lambda row: suspect.note)
    return replace(example, boxes=(*example.boxes, *predicted))


def contradictions(split: Split, predictor) -> Contradictions:
    """Predict all images of a split and compare the predictions with the annotations."""
    labels = _labels_by_model_label(split, predictor)
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
        predicted = _Predicted(boxes[known], of_dataset[known], np.asarray(prediction.scores, dtype=np.float64)[known])
        _compare(found, split, index, rows, predicted, crowd.get(index))
        progress.advance()
    progress.close()
    return found


@dataclass(frozen=True)
class _Predicted:
    """Predictions of an image: (P, 4) inclusive corners, (P,) labels of the dataset, (P,) scores."""

    boxes: np.ndarray
    labels: np.ndarray
    scores: np.ndarray


def _compare(found: Contradictions, split: Split, index: int, rows, predicted: _Predicted, crowd) -> None:
    """Add the contradictions of one image.

    Args:
        rows: (G,) indices of its boxes.
        predicted: predictions of the image.
        crowd: (R, 4) its crowd regions, or None.
    """
    table, names = split.table, split.class_names
    labels, scores = predicted.labels, predicted.scores
    ious = pairwise_iou(table.boxes[rows].astype(np.float64), predicted.boxes, TO_REMOVE)
    same_class = table.labels[rows][:, None] == labels[None]
    probability = np.where(same_class, ious * scores, 0).max(axis=1, initial=0)
    losses = -np.log(np.maximum(probability, LEAST))
    confirmed, confirming = _assign(np.where(same_class & (ious >= FITS) & (scores >= CONFIRMS), ious * scores, 0))
    left, unused = np.ones(len(rows), dtype=bool), np.ones(len(labels), dtype=bool)
    left[confirmed], unused[confirming] = False, False
    confident = unused & (scores >= CONFIDENT)
    least = np.where(same_class, OVERLAPS, SAME_PLACE)
    contradicted, by = _assign(np.where((ious >= least) & left[:, None] & confident[None], ious * scores, 0))
    for place, k in zip(contradicted.tolist(), by.tolist(), strict=True):
        row, name, box = int(rows[place]), names[labels[k] - 1], tuple(predicted.boxes[k].tolist())
        annotated = names[table.labels[row] - 1]
        if same_class[place, k]:
            note, kind = f"annotated {annotated}, predicted {scores[k]:.2f}, IoU {ious[place, k]:.2f}", found.misplaced
        elif scores[k] > 2 * probability[place]:
            note, kind = f"annotated {annotated}, predicted {name} {scores[k]:.2f}", found.other_class
        else:
            continue
        left[place] = unused[k] = False
        loss = float(losses[place] - math.log(max(1 - scores[k], LEAST)))
        kind.append(Suspect(loss, index, row, f"{note}, loss {loss:.1f}", box))
    for k in np.flatnonzero(unused & (scores >= CONFIDENT)).tolist():
        # a second prediction of an object, or one in a crowd region, is no missing box
        if (ious[:, k] >= FITS).any() or crowd is not None and _inside(predicted.boxes[k], crowd):
            continue
        loss = -math.log(max(1 - scores[k], LEAST))
        note = f"predicted {names[labels[k] - 1]} {scores[k]:.2f}, loss {loss:.1f}"
        found.missing.append(Suspect(loss, index, None, note, tuple(predicted.boxes[k].tolist())))
    for place in np.flatnonzero(left).tolist():
        row, near = int(rows[place]), ious[place] >= NEAR
        annotated = f"annotated {names[table.labels[row] - 1]}"
        if not near.any():
            share = areas(table.boxes[row : row + 1], TO_REMOVE)[0] / split.dataset.image_sizes[index].prod()
            found.unfound.append(Suspect(float(share), index, row, f"{annotated}, nothing found there"))
        elif losses[place] >= HIGH_LOSS:
            note = f"{annotated}, loss {losses[place]:.1f}"
            found.high_loss.append(Suspect(float(losses[place]), index, row, note))


def _assign(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Assign columns to rows one to one, the highest positive values first; return the rows and the columns."""
    rows, columns = np.nonzero(values > 0)
    order = np.argsort(-values[rows, columns], kind="stable")
    taken_rows, taken_columns, pairs = set(), set(), []
    for row, column in zip(rows[order].tolist(), columns[order].tolist(), strict=True):
        if row not in taken_rows and column not in taken_columns:
            taken_rows.add(row)
            taken_columns.add(column)
            pairs.append((row, column))
    found = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    return found[:, 0], found[:, 1]


def _inside(box: np.ndarray, crowd: np.ndarray) -> bool:
    """Return whether half of the box is in one of the crowd regions."""
    return bool((intersections(crowd, box[None], TO_REMOVE) >= 0.5 * areas(box[None], TO_REMOVE)).any())


def _crowd_boxes(split: Split) -> dict[int, np.ndarray]:
    """Return the crowd regions, (R, 4) inclusive corners, by index of the image."""
    regions: dict[int, list] = {}
    given = split.given
    for row in np.flatnonzero(given.crowd).tolist():
        index = split.image_places.get(given.image_ids[given.image_index[row]])
        if index is not None:
            regions.setdefault(index, []).append(given.boxes[row])
    return {index: np.array(boxes, dtype=np.float64) for index, boxes in regions.items()}


def _labels_by_model_label(split: Split, predictor) -> Mapping[int, int]:
    """Return the dataset's label by the model's, for classes with the same name."""
    of_dataset = {name: label for label, name in enumerate(split.class_names, start=1)}
    labels = {k: of_dataset[name] for k, name in enumerate(predictor.class_names, start=1) if name in of_dataset}
    if not labels:
        raise NoCommonClassError(
            f"the model of --weights has none of the classes of {split.name}: its classes are "
            f"{', '.join(predictor.class_names) or 'unnamed'}, those of the dataset {', '.join(split.class_names)}"
        )
    return labels
