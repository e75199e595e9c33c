"""Data sets, by the names that the catalog and the forks use."""

from .abstract import AbstractDataset
from .cityscapes import CityScapesDataset
from .coco import COCODataset
from .coco_panoptic import COCOPanopticDataset
from .concat_dataset import ConcatDataset
from .list_dataset import ListDataset
from .voc import PascalVOCDataset

__all__ = [
    "AbstractDataset",
    "CityScapesDataset",
    "COCODataset",
    "COCOPanopticDataset",
    "ConcatDataset",
    "ListDataset",
    "PascalVOCDataset",
]
