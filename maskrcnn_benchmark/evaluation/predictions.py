"""Write and read predictions.pth: the detections of a dataset, a list of BoxList by dataset index."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch

from maskrcnn_benchmark.checkpoint.safe_unpickle import load_pickled
from maskrcnn_benchmark.structures.bounding_box import BoxList
from maskrcnn_benchmark.structures.keypoint import Keypoints, PersonKeypoints
from maskrcnn_benchmark.structures.packed_map import PackedMap
from maskrcnn_benchmark.structures.panoptic_map import PanopticMap
from maskrcnn_benchmark.utils.atomic_write import atomic_write

Predictions = Sequence[BoxList | None] | Mapping[int, BoxList]

# Classes allowed in the file, under the module names of the packages that write such files.
_NAMES = {
    (f"{package}.structures.{module}", kind.__name__): kind
    for package in ("maskrcnn_benchmark", "fcos_core")
    for module, kind in (("bounding_box", BoxList), ("keypoint", Keypoints), ("keypoint", PersonKeypoints))
} | {(kind.__module__, kind.__name__): kind for kind in (PackedMap, PanopticMap)}


def numbered(predictions: Predictions) -> Iterator[tuple[int, BoxList]]:
    """Yield (dataset index, detections) of every image with a prediction, in ascending order of index.

    Args:
        predictions: a list by dataset index (None for images that were not processed) or a mapping from index.
    """
    pairs: Iterable = sorted(predictions.items()) if isinstance(predictions, Mapping) else enumerate(predictions)
    return ((index, prediction) for index, prediction in pairs if prediction is not None)


def save_predictions(predictions: Sequence[BoxList | None], path: str | os.PathLike) -> None:
    """Write the list with torch.save, in the format of maskrcnn-benchmark's predictions.pth."""
    compact = [None if prediction is None else _compact(prediction) for prediction in predictions]
    with atomic_write(path) as file:
        torch.save(compact, file)


def _compact(boxlist: BoxList) -> BoxList:
    """Copy detections into their own storage: saving a view would save its whole base tensor."""
    new = BoxList(boxlist.bbox.detach().to("cpu").clone(), boxlist.size, boxlist.mode, boxlist.box_offset)
    for name in boxlist.fields():
        data = boxlist.get_field(name)
        if isinstance(data, torch.Tensor):
            data = data.detach().to("cpu").clone()
        elif isinstance(data, Keypoints):
            data = data.to("cpu")[torch.arange(len(data))]  # indexing copies the keypoints and their fields
        new.add_field(name, data)
    return new


def load_predictions(path: str | os.PathLike) -> list[BoxList | None]:
    """Read a predictions.pth of this package or of the forks. Only BoxLists, keypoints, maps and tensors are unpickled.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file is damaged, requires another class, or is not a list of BoxList.
    """
    predictions = load_pickled(path, allow=_NAMES)
    fits = isinstance(predictions, list) and all(
        entry is None or (isinstance(entry, BoxList) and isinstance(getattr(entry, "bbox", None), torch.Tensor))
        for entry in predictions
    )
    if not fits:
        raise ValueError(f"{path} does not hold a list of BoxList; give a predictions.pth written by testing")
    return predictions
