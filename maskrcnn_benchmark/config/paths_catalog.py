"""Catalogs of named datasets and published models. Paths of datasets are relative to the data folder.

Other datasets are described by an inline block in DATASETS.TRAIN or DATASETS.TEST.
"""

from __future__ import annotations

import copy
import os
from dataclasses import dataclass, field

from maskrcnn_benchmark.utils.braces import expand_braces
from maskrcnn_benchmark.utils.text_file import did_you_mean

from .errors import UnknownNameError, nearest
from .packaged_weights import packaged_weights
from .weights_table import find_weights


@dataclass(frozen=True)
class Format:
    """Keys of an inline block of one FORMAT. Dictionaries map the block's keys to arguments of the dataset class.

    Attributes:
        factory: name of the class in data.datasets.
        paths, optional_paths: files and folders.
        texts: strings, passed unchanged.
        defaults: further arguments and their values, overridden by the block.
        numbers: pixel values, or one of `words`.
        names: strings, or a file with strings.
        required: keys of `texts` that a block must have.
        whole_numbers: a single integer each.
    """

    factory: str
    paths: dict[str, str]
    optional_paths: dict[str, str] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    defaults: dict[str, object] = field(default_factory=dict)
    numbers: dict[str, str] = field(default_factory=dict)
    words: tuple[str, ...] = ()
    names: dict[str, str] = field(default_factory=dict)
    required: tuple[str, ...] = ()
    whole_numbers: dict[str, str] = field(default_factory=dict)


FORMATS = {
    "coco": Format("COCODataset", {"IMAGES": "root", "ANNOTATIONS": "ann_file"}),
    "coco_panoptic": Format(
        "COCOPanopticDataset",
        {"IMAGES": "root", "ANNOTATIONS": "panoptic_file"},
        {"SEGMENTS": "segments_dir", "INSTANCES": "instances_file"},
    ),
    "coco_semantic": Format("COCOSemanticDataset", {"IMAGES": "root", "ANNOTATIONS": "ann_file"}),
    "semantic": Format(
        "SemanticDataset",
        {"IMAGES": "image_dir", "ANNOTATIONS": "map_dir"},
        {"SPLIT": "split_file"},
        {"IMAGE_SUFFIX": "image_suffix", "MAP_SUFFIX": "map_suffix"},
        numbers={"IGNORE": "ignore", "VALUES": "values"},
        words=("others",),
        names={"CLASSES": "class_names"},
    ),
    "cityscapes_semantic": Format(
        "CityscapesSemanticDataset",
        {"IMAGES": "img_dir", "ANNOTATIONS": "ann_dir"},
        texts={"SPLIT": "split", "LABELS": "labels"},
        required=("SPLIT",),
    ),
    "voc": Format(
        "PascalVOCDataset",
        {"IMAGES": "image_dir", "ANNOTATIONS": "annotation_dir"},
        {"SPLIT": "split_file"},
        {"CLASSES": "class_names"},
        {"class_names": "from the data"},
        whole_numbers={"FIRST_PIXEL": "first_pixel"},
    ),
    "labelme": Format(
        "LabelMeDataset",
        {"ANNOTATIONS": "annotation_dir"},
        {"IMAGES": "image_dir", "SPLIT": "split_file"},
        {"CLASSES": "class_names"},
    ),
    "lvis": Format("LVISDataset", {"IMAGES": "root", "ANNOTATIONS": "ann_file"}),
    "openimages": Format(
        "OpenImagesDataset",
        {"IMAGES": "root", "ANNOTATIONS": "ann_file"},
        {
            "CLASSES": "classes_file",
            "SPLIT": "split_file",
            "MASKS": "masks_file",
            "MASK_IMAGES": "mask_dir",
            "HIERARCHY": "hierarchy_file",
        },
    ),
    "yolo": Format("YOLODataset", {"DATA": "data_file"}, texts={"SPLIT": "split"}, required=("SPLIT",)),
}
# Formats in which `texts` are single strings, not lists.
SINGLE_TEXTS = ("semantic", "cityscapes_semantic", "yolo")
# Endings of files that `names` may be read from.
NAME_FILES = (".txt", ".json", ".names", ".lst")
EXAMPLE = "{FORMAT: coco, IMAGES: folder/of/images, ANNOTATIONS: file.json}"
EXAMPLES = {
    "coco": EXAMPLE,
    "coco_panoptic": (
        "{FORMAT: coco_panoptic, IMAGES: folder/of/images, ANNOTATIONS: file.json, SEGMENTS: folder/of/png}"
    ),
    "coco_semantic": "{FORMAT: coco_semantic, IMAGES: folder/of/images, ANNOTATIONS: file.json}",
    "semantic": (
        "{FORMAT: semantic, IMAGES: folder/of/images, ANNOTATIONS: folder/of/index/png, CLASSES: [background, cat] or "
        "file.txt, SPLIT: list.txt, IGNORE: 255}"
    ),
    "cityscapes_semantic": (
        "{FORMAT: cityscapes_semantic, IMAGES: cityscapes/leftImg8bit, ANNOTATIONS: cityscapes/gtFine, SPLIT: train}"
    ),
    "voc": "{FORMAT: voc, IMAGES: folder/of/images, ANNOTATIONS: folder/of/xml, SPLIT: file.txt}",
    "labelme": "{FORMAT: labelme, ANNOTATIONS: folder/of/json, CLASSES: [cat, dog]}",
    "lvis": "{FORMAT: lvis, IMAGES: coco, ANNOTATIONS: lvis_v1_val.json}",
    "openimages": "{FORMAT: openimages, IMAGES: folder/of/images, ANNOTATIONS: file.csv, CLASSES: descriptions.csv}",
    "yolo": "{FORMAT: yolo, DATA: folder/data.yaml, SPLIT: train}",
}


def check_entries(value, key: str) -> tuple:
    """Convert a value of DATASETS.TRAIN or TEST to a tuple of names (str) and blocks (plain dict).

    Args:
        value: a name, a block, or a list or tuple of them.
        key: name of the config key in errors.

    Raises:
        ValueError: an entry is neither a name nor a block, or a block has a missing or invalid key.
        UnknownNameError: a block has an unknown key.
    """
    entries = value if isinstance(value, (list, tuple)) else [value]
    return tuple(_check_block(e, key) if isinstance(e, dict) else _check_name(e, key) for e in entries)


def _check_name(name, key: str) -> str:
    # A list without quotes, (a, b), is not a Python literal and arrives here as one string.
    if not isinstance(name, str) or not name or set(name) & set("()[]{},'\""):
        raise ValueError(f'{key} should hold names, as in ("a", "b"), or blocks, as in {EXAMPLE}, but has {name!r}.')
    return name


def _check_block(block: dict, key: str) -> dict[str, str]:
    if "FORMAT" not in block:
        raise ValueError(f"{key}: the block {dict(block)} has no FORMAT. Write {EXAMPLE}.")
    if block["FORMAT"] not in list(FORMATS):  # a list, because the value may not be hashable
        raise ValueError(f"{key}: FORMAT {block['FORMAT']!r} is unknown; known: {', '.join(FORMATS)}.")
    kind = FORMATS[block["FORMAT"]]
    required = ["FORMAT", *kind.paths, *kind.names, *kind.required]
    optional = [*kind.optional_paths, *kind.texts, *kind.numbers, *kind.whole_numbers, "NAME"]
    allowed = [*dict.fromkeys([*required, *optional])]
    for name, value in block.items():
        if name not in allowed:
            raise UnknownNameError(
                f"{key}: unknown key {name!r} in a block of FORMAT {block['FORMAT']}; allowed: {', '.join(allowed)}. "
                f"Nearest: {nearest(str(name).upper(), allowed, 1)[0]}."
            )
        if name in kind.whole_numbers:
            _whole_number(value, f"{key}: {name} of a block")
            continue
        if name in kind.numbers:
            _numbers(value, kind.words, f"{key}: {name} of a block")
            continue
        if name in (*kind.texts, *kind.names) and isinstance(value, (list, tuple)) and value:
            if all(isinstance(text, str) and text for text in value):
                continue
        if not isinstance(value, str) or not value:
            raise ValueError(f"{key}: {name} of a block should be text, but is {value!r} ({type(value).__name__}).")
    missing = [name for name in required if name not in block]
    if missing:
        example = EXAMPLES[block["FORMAT"]]
        raise ValueError(f"{key}: the block {dict(block)} lacks {', '.join(missing)}. Write {example}.")
    return dict(block)


def _coco(images: str, annotations: str) -> dict[str, str]:
    return {"img_dir": images, "ann_file": annotations}


def _datasets() -> dict[str, dict]:
    table = {
        "coco_2017_train": _coco("coco/train2017", "coco/annotations/instances_train2017.json"),
        "coco_2017_val": _coco("coco/val2017", "coco/annotations/instances_val2017.json"),
        "coco_2017_test_dev": _coco("coco/test2017", "coco/annotations/image_info_test-dev2017.json"),
    }
    for split in ("train", "val"):
        # "separated" is detectron2's name; things and stuff are always separate here
        for name in (f"coco_2017_{split}_panoptic", f"coco_2017_{split}_panoptic_separated"):
            table[name] = {
                **_coco(f"coco/{split}2017", f"coco/annotations/panoptic_{split}2017.json"),
                "instances_file": f"coco/annotations/instances_{split}2017.json",
            }
    for split in ("train", "val", "minival", "valminusminival"):
        images = "coco/train2014" if split == "train" else "coco/val2014"
        table[f"coco_2014_{split}"] = _coco(images, f"coco/annotations/instances_{split}2014.json")
        table[f"keypoints_coco_2014_{split}"] = _coco(images, f"coco/annotations/person_keypoints_{split}2014.json")
    for year in ("2007", "2012"):
        folder = f"voc/VOC{year}"
        for split in ("train", "val", "test"):
            table[f"voc_{year}_{split}"] = {"data_dir": folder, "split": split}
            if (year, split) != ("2012", "test"):
                annotations = f"{folder}/Annotations/pascal_{split}{year}.json"
                table[f"voc_{year}_{split}_cocostyle"] = _coco(f"{folder}/JPEGImages", annotations)
    for split in ("train", "val", "test"):
        table[f"cityscapes_fine_instanceonly_seg_{split}_cocostyle"] = _coco(
            "cityscapes/images", f"cityscapes/annotations/instancesonly_filtered_gtFine_{split}.json"
        )
    for split, maps in (
        *((split, "SegmentationClass") for split in ("train", "val", "trainval")),
        # DeepLab's lists of SBD's and VOC's images, with the maps of both in one folder
        *((split, "SegmentationClassAug") for split in ("train_aug", "val_aug")),
    ):
        table[f"voc_2012_seg_{split}"] = {
            "factory": "VOCSemanticDataset",
            "data_dir": "voc/VOC2012",
            "split": "val" if split == "val_aug" else split,
            "maps": maps,
        }
    for split in ("train", "val"):
        table[f"cityscapes_fine_sem_seg_{split}"] = {
            "factory": "CityscapesSemanticDataset",
            "img_dir": "cityscapes/leftImg8bit",
            "ann_dir": "cityscapes/gtFine",
            "split": split,
        }
    for mode in ("poly", "mask"):
        city = {"img_dir": "cityscapes/leftImg8bit", "ann_dir": "cityscapes/gtFine", "mode": mode}
        table[f"cityscapes_{mode}_instance_train"] = {**city, "split": "train"}
        table[f"cityscapes_{mode}_instance_val"] = {**city, "split": "val"}
        table[f"cityscapes_{mode}_instance_minival"] = {**city, "split": "val", "mini": 10}
    return table


class DatasetCatalog:
    """Datasets by name. Programs may add entries to `DATASETS`: name -> {"img_dir", "ann_file"} for COCO json."""

    DATA_DIR = "datasets"
    DATASETS = _datasets()

    @staticmethod
    def root(root: str | None = None) -> str:
        """Return the data folder: `root` if not empty, else $MB_DATASETS, else "datasets"."""
        return os.path.expanduser(root or os.environ.get("MB_DATASETS") or DatasetCatalog.DATA_DIR)

    @staticmethod
    def get(entry: str | dict, root: str | None = None) -> dict:
        """Return {"factory": class name in data.datasets, "args": keyword arguments} for a name or an inline block.

        The existence of files is checked only for blocks, see `from_block`.

        Raises:
            UnknownNameError (a KeyError): the name is not in the catalog.
        """
        if isinstance(entry, dict):
            return DatasetCatalog.from_block(entry, root)
        if entry not in DatasetCatalog.DATASETS:
            near = ", ".join(nearest(entry, DatasetCatalog.DATASETS))
            raise UnknownNameError(
                f"dataset {entry!r} is not in the catalog. Nearest: {near}. "
                f"For your own data write a block instead, in DATASETS.TRAIN and DATASETS.TEST:\n"
                f"  - {EXAMPLE}"
            )
        attrs = copy.deepcopy(DatasetCatalog.DATASETS[entry])
        folder = DatasetCatalog.root(root)
        for key in attrs.keys() & {"img_dir", "ann_file", "ann_dir", "data_dir", "instances_file"}:
            attrs[key] = os.path.join(folder, attrs[key])
        if "factory" in attrs:
            return {"factory": attrs.pop("factory"), "args": attrs}
        if "instances_file" in attrs:
            args = {"root": attrs["img_dir"], "panoptic_file": attrs["ann_file"]}
            return {"factory": "COCOPanopticDataset", "args": {**args, "instances_file": attrs["instances_file"]}}
        if "ann_file" in attrs:
            return {"factory": "COCODataset", "args": {"root": attrs["img_dir"], "ann_file": attrs["ann_file"]}}
        return {"factory": "PascalVOCDataset" if "data_dir" in attrs else "CityScapesDataset", "args": attrs}

    @staticmethod
    def from_block(block: dict, root: str | None = None) -> dict:
        """Return the result of `get` for an inline block.

        A relative path is looked up in the working directory first, then in the data folder.

        Raises:
            FileNotFoundError: a path exists in neither; both are named.
            ValueError, UnknownNameError: the block is malformed.
        """
        block = _check_block(block, "dataset block")
        kind = FORMATS[block["FORMAT"]]
        paths = {**kind.paths, **kind.optional_paths}
        args = kind.defaults | {arg: _existing(block, key, root) for key, arg in paths.items() if key in block}
        for key, arg in kind.texts.items():
            if key in block:
                args[arg] = block[key] if block["FORMAT"] in SINGLE_TEXTS else _texts(block[key])
        for key, arg in kind.numbers.items():
            if key in block:
                args[arg] = _numbers(block[key], kind.words, key)
        for key, arg in kind.whole_numbers.items():
            if key in block:
                args[arg] = _whole_number(block[key], key)
        for key, arg in kind.names.items():
            is_file = isinstance(block[key], str) and block[key].lower().endswith(NAME_FILES)
            args[arg] = _existing(block, key, root) if is_file else _texts(block[key])
        return {"factory": kind.factory, "args": args}

    @staticmethod
    def name(entry: str | dict) -> str:
        """Return the dataset's name: its catalog name, or a block's NAME.

        A block without NAME has the name of its split or annotation file, without extension. A YOLO dataset has the
        name FOLDER_SPLIT.
        """
        if isinstance(entry, str):
            return entry
        if "DATA" in entry and not entry.get("NAME"):
            path = os.path.abspath(os.path.expanduser(entry["DATA"]))
            folder = os.path.dirname(path) if os.path.splitext(path)[1] else path
            return f"{os.path.basename(folder)}_{entry['SPLIT']}"
        path = entry.get("SPLIT") or entry["ANNOTATIONS"]
        return entry.get("NAME") or os.path.splitext(os.path.basename(path.rstrip("/")))[0]


def _numbers(value, words: tuple[str, ...], where: str) -> list[int] | str:
    """Convert an integer, a list of integers, or a string with commas to a list of integers; a word is unchanged.

    Raises:
        ValueError: the value is none of these.
    """
    if isinstance(value, str) and value in words:
        return value
    items = value if isinstance(value, (list, tuple)) else str(value).split(",")
    try:
        if any(isinstance(item, (bool, float)) for item in items):
            raise ValueError
        return [int(item) for item in items]
    except (TypeError, ValueError):
        also = "".join(f", or {word!r}" for word in words)
        raise ValueError(f"{where} should be whole numbers{also}, but is {value!r}.") from None


def _whole_number(value, where: str) -> int:
    numbers = _numbers(value, (), where)
    if len(numbers) != 1:
        raise ValueError(f"{where} should be one whole number, but is {value!r}.")
    return numbers[0]


def _texts(value) -> list[str]:
    """Convert a string with commas, or a list of strings, to a list of strings."""
    return [text.strip() for text in (value.split(",") if isinstance(value, str) else value)]


def _existing(block: dict, key: str, root: str | None) -> str:
    path = os.path.expanduser(block[key])
    tried = [path] if os.path.isabs(path) else [path, os.path.join(DatasetCatalog.root(root), path)]
    for candidate in tried:
        # tar files have braces: shards/{000000..000127}.tar
        if os.path.exists(candidate) or ("{" in candidate and all(map(os.path.exists, expand_braces(candidate)))):
            return candidate
    places = " nor ".join(os.path.abspath(candidate) for candidate in tried)
    hint = "" if os.path.isabs(path) else " Set DATASETS.ROOT or $MB_DATASETS to the folder it is in."
    name = DatasetCatalog.name(block)
    near = next(filter(None, map(did_you_mean, tried)), "")
    raise FileNotFoundError(f"{key} {block[key]} of dataset {name} does not exist: no {places}.{near}{hint}")


class ModelCatalog:
    """Addresses of the models that configs name as catalog://NAME; see weights_table."""

    @staticmethod
    def get(name: str) -> str:
        """Return the first address of a name, with or without catalog://, or the path of the file in a package.

        Raises:
            UnknownNameError (a KeyError): no such name.
            FileNotFoundError, ValueError: see `packaged_weights`; or no address is known.
        """
        entry = find_weights(name)
        if entry.package is not None:
            return packaged_weights(entry.name, entry.package, entry.sha256)
        if not entry.addresses:
            raise FileNotFoundError(f"no address of {entry.name} is known: {entry.note}")
        return entry.addresses[0]
