"""predictions.pth: the detections of a whole data set, as a list of BoxList by data set index."""

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

# The classes under the module names of the packages that wrote such files.
_NAMES = {
    (f"{package}.structures.{module}", kind.__name__): kind
    for package in ("maskrcnn_benchmark", "fcos_core")
    for module, kind in (("bounding_box", BoxList), ("keypoint", Keypoints), ("keypoint", PersonKeypoints))
} | {(kind.__module__, kind.__name__): kind for kind in (PackedMap, PanopticMap)}


def numbered(predictions: Predictions) -> Iterator[tuple[int, BoxList]]:
    """(data set index, detections) of every picture that has any entry, by rising index.

    Args:
        predictions: a list by data set index (None where a picture was not seen) or a mapping from index.
    """
    pairs: Iterable = sorted(predictions.items()) if isinstance(predictions, Mapping) else enumerate(predictions)
    return ((index, prediction) for index, prediction in pairs if prediction is not None)


def save_predictions(predictions: Sequence[BoxList | None], path: str | os.PathLike) -> None:
    """Writes the list with torch.save; scripts written for maskrcnn-benchmark's predictions.pth read it."""
    compact = [None if prediction is None else _compact(prediction) for prediction in predictions]
    with atomic_write(path) as file:
        torch.save(compact, file)


def _compact(boxlist: BoxList) -> BoxList:
    """The same detections with storages of their own: a view would take all of its base tensor to the file."""
    new = BoxList(boxlist.bbox.detach().to("cpu").clone(), boxlist.size, boxlist.mode, boxlist.box_offset)
    for name in boxlist.fields():
        data = boxlist.get_field(name)
        if isinstance(data, torch.Tensor):
            data = data.detach().to("cpu").clone()
        elif isinstance(data, Keypoints):
            data = data.to("cpu")[torch.arange(len(data))]  # this copies, its fields too
        new.add_field(name, data)
    return new


def load_predictions(path: str | os.PathLike) -> list[BoxList | None]:
    """Reads a predictions.pth of this package or of the forks; BoxLists, keypoints and tensors are all it unpickles.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, asks for another class, or holds something else.
    """
    predictions = load_pickled(path, allow=_NAMES)
    fits = isinstance(predictions, list) and all(
        entry is None or (isinstance(entry, BoxList) and isinstance(getattr(entry, "bbox", None), torch.Tensor))
        for entry in predictions
    )
    if not fits:
        raise ValueError(f"{path} holds no list of BoxList; give the predictions.pth that testing wrote")
    return predictions
