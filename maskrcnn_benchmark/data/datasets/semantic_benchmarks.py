"""Pascal VOC 2012 and Cityscapes for semantic segmentation, in their published folder layouts."""

from __future__ import annotations

import os

from maskrcnn_benchmark.data.datasets.cityscapes_annotations import IMAGE_SUFFIX
from maskrcnn_benchmark.data.datasets.image_settings import ImageSettings
from maskrcnn_benchmark.data.datasets.reading import Reading
from maskrcnn_benchmark.data.datasets.semantic import OTHERS, SemanticDataset
from maskrcnn_benchmark.data.datasets.semantic_files import FileIndex
from maskrcnn_benchmark.data.datasets.voc import PascalVOCDataset

# Label ids of the 19 benchmark classes of Cityscapes, in the order of train ids.
CITYSCAPES_LABEL_IDS = {
    "road": 7,
    "sidewalk": 8,
    "building": 11,
    "wall": 12,
    "fence": 13,
    "pole": 17,
    "traffic light": 19,
    "traffic sign": 20,
    "vegetation": 21,
    "terrain": 22,
    "sky": 23,
    "person": 24,
    "rider": 25,
    "car": 26,
    "truck": 27,
    "bus": 28,
    "train": 31,
    "motorcycle": 32,
    "bicycle": 33,
}


class VOCSemanticDataset(SemanticDataset):
    """Pascal VOC 2012 (Everingham et al., IJCV 2015), 20 classes and the background.

    Args:
        data_dir: folder with JPEGImages, the maps and ImageSets/Segmentation/SPLIT.txt.
        split: "train", "val", "trainval", or "train_aug" for the 10,582 images of SBD (Hariharan et al., ICCV 2011).
            The list train_aug.txt may also be called trainaug.txt. A list may name images, or files of image and map.
        maps: folder of the maps, "SegmentationClass" or "SegmentationClassAug".
        remove_images_without_annotations, transforms, name, images, reading: see SemanticDataset.
    """

    CLASSES = ("background", *PascalVOCDataset.CLASSES[1:])

    def __init__(
        self,
        data_dir: str,
        split: str,
        maps: str = "SegmentationClass",
        remove_images_without_annotations: bool = False,
        transforms=None,
        *,
        name: str | None = None,
        images: ImageSettings | None = None,
        reading: Reading | None = None,
    ):
        lists = [os.path.join(data_dir, "ImageSets", "Segmentation", f"{each}.txt") for each in _spellings(split)]
        super().__init__(
            os.path.join(data_dir, "JPEGImages"),
            os.path.join(data_dir, maps),
            self.CLASSES,
            remove_images_without_annotations,
            transforms,
            split_file=next(filter(os.path.isfile, lists), lists[0]),
            name=name or f"voc_2012_seg_{split}",
            images=images,
            reading=reading,
        )


def _spellings(split: str) -> list[str]:
    return [split, split.replace("_", "")]


class CityscapesSemanticDataset(SemanticDataset):
    """Cityscapes (Cordts et al., CVPR 2016), the 19 classes of the benchmark.

    Args:
        img_dir, ann_dir: "leftImg8bit" and "gtFine" (or "gtCoarse"), with files in SPLIT/CITY.
        split: "train", "val", ...
        labels: maps to read. "labelIds" are published with the dataset; their values are mapped to train ids.
            "labelTrainIds" are created from them by the benchmark's scripts. "auto" uses labelIds if there are any.
        remove_images_without_annotations, transforms, name, images, reading: see SemanticDataset.

    Raises:
        ValueError: labels is none of these.
    """

    def __init__(
        self,
        img_dir: str,
        ann_dir: str,
        split: str,
        labels: str = "auto",
        remove_images_without_annotations: bool = False,
        transforms=None,
        *,
        name: str | None = None,
        images: ImageSettings | None = None,
        reading: Reading | None = None,
    ):
        kinds = ("labelIds", "labelTrainIds")
        if labels not in ("auto", *kinds):
            raise ValueError(f"labels of Cityscapes must be 'auto', 'labelIds' or 'labelTrainIds', got {labels!r}")
        maps = os.path.join(ann_dir, split)
        kind = os.path.basename(os.path.normpath(ann_dir))  # gtFine or gtCoarse, also part of the file names
        if labels == "auto":
            labels = next((each for each in kinds if _has_maps(maps, f"_{kind}_{each}.png")), kinds[0])
        super().__init__(
            os.path.join(img_dir, split),
            maps,
            list(CITYSCAPES_LABEL_IDS),
            remove_images_without_annotations,
            transforms,
            values=list(CITYSCAPES_LABEL_IDS.values()) if labels == "labelIds" else None,
            # unlabeled, ego vehicle, licence plate (-1, stored as 255), and classes that the benchmark excludes
            ignore=OTHERS if labels == "labelIds" else (255,),
            image_suffix=IMAGE_SUFFIX,
            map_suffix=f"_{kind}_{labels}.png",
            name=name or f"cityscapes_{split}",
            images=images,
            reading=reading,
        )


def _has_maps(folder: str, suffix: str) -> bool:
    return os.path.isdir(folder) and bool(FileIndex(folder, (".png",), suffix, "map").files)
