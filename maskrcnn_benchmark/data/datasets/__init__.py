"""Dataset classes, under the names used by the catalog and the forks."""

from .abstract import AbstractDataset
from .cityscapes import CityScapesDataset
from .coco import COCODataset
from .coco_panoptic import COCOPanopticDataset
from .coco_semantic import COCOSemanticDataset
from .concat_dataset import ConcatDataset
from .labelme import LabelMeDataset
from .list_dataset import ListDataset
from .lvis import LVISDataset
from .open_images import OpenImagesDataset
from .semantic import SemanticDataset
from .semantic_benchmarks import CityscapesSemanticDataset, VOCSemanticDataset
from .voc import PascalVOCDataset
from .yolo import YOLODataset

__all__ = [
    "AbstractDataset",
    "CityScapesDataset",
    "CityscapesSemanticDataset",
    "COCODataset",
    "COCOPanopticDataset",
    "COCOSemanticDataset",
    "ConcatDataset",
    "LabelMeDataset",
    "ListDataset",
    "LVISDataset",
    "OpenImagesDataset",
    "PascalVOCDataset",
    "SemanticDataset",
    "VOCSemanticDataset",
    "YOLODataset",
]
