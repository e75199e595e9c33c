"""Base class for custom datasets with COCO evaluation."""

from __future__ import annotations

from collections.abc import Sequence

from torch.utils.data import Dataset

from maskrcnn_benchmark.structures.bounding_box import BoxList


class AbstractDataset(Dataset):
    """Base class of datasets that are not read from a COCO file but evaluated like one.

    A subclass sets CLASSES, calls `initMaps`, and implements:
    - `__len__()`;
    - `__getitem__(index)`, which returns (image, BoxList, index);
    - `get_img_info(index)`, which returns a dict with "height" and "width" of the original image;
    - `get_groundtruth(index)`, which returns the BoxList before transforms, in pixels of the original image, with the
      field "labels" and, to evaluate them, "masks" (SegmentationMask) and "keypoints" (PersonKeypoints).

    Attributes after `initMaps`:
        name_to_id, id_to_name: class name <-> label; 0 is the background.
        class_names: names without the background; label k is class_names[k - 1].
        contiguous_category_id_to_json_id: label -> category id in result files, the same number.
    """

    CLASSES: Sequence[str] = ()

    def initMaps(self) -> None:
        """Create the maps between class names and labels.

        Raises:
            ValueError: CLASSES does not start with "__background__", or repeats a name.
        """
        names = list(self.CLASSES)
        if names[:1] != ["__background__"] or len(set(names)) < len(names):
            raise ValueError(
                f"{type(self).__name__}.CLASSES must be '__background__' and then every class once, got {names}"
            )
        self.name_to_id = {name: label for label, name in enumerate(names)}
        self.id_to_name = dict(enumerate(names))
        self.class_names = names[1:]
        self.contiguous_category_id_to_json_id = {label: label for label in range(1, len(names))}

    def image_id(self, index: int):
        """Return the image's id in result files."""
        return index

    def __len__(self) -> int:
        raise NotImplementedError(f"{type(self).__name__} has no __len__")

    def __getitem__(self, index: int):
        raise NotImplementedError(f"{type(self).__name__} has no __getitem__")

    def get_img_info(self, index: int) -> dict:
        raise NotImplementedError(f"{type(self).__name__} has no get_img_info")

    def get_groundtruth(self, index: int) -> BoxList:
        raise NotImplementedError(f"{type(self).__name__} has no get_groundtruth")
