"""Pascal VOC detection dataset."""

from __future__ import annotations

import os
from collections.abc import Sequence

from maskrcnn_benchmark.data.datasets.annotation_table import AnnotationTable
from maskrcnn_benchmark.data.datasets.box_dataset import BoxDataset
from maskrcnn_benchmark.data.datasets.file_lists import image_names, list_files
from maskrcnn_benchmark.data.datasets.image_settings import ImageSettings
from maskrcnn_benchmark.data.datasets.reading import FROM_THE_DATA, Reading
from maskrcnn_benchmark.data.datasets.report import DatasetReport
from maskrcnn_benchmark.data.datasets.sources import Sources, absolute
from maskrcnn_benchmark.data.datasets.voc_annotations import (
    find_by_filename,
    find_class_names,
    find_images,
    read_voc,
)


class PascalVOCDataset(BoxDataset):
    """Images of one Pascal VOC split, in the order of the split file.

    Args:
        data_dir: folder with Annotations/NAME.xml, JPEGImages/NAME.jpg and ImageSets/Main/SPLIT.txt.
        split: "train", "val", "test", ...
        use_difficult: keep objects marked as difficult.
        transforms: (image, target) -> (image, target); None returns PIL images.
        class_names: K names, label k is class_names[k - 1]; or "from the data" for the names of all objects in the
            annotation folder, in alphabetical order.
        remove_images_without_annotations: drop images without a usable box (for training).
        image_dir, annotation_dir, split_file: override the paths below data_dir. Without data_dir and split_file, all
            images with an xml file are used.
        first_pixel: 1 as in VOC, or 0 for exporters whose coordinates are edges counted from 0.
        name: name of the dataset in messages; default: the names of data_dir and the split.
        images: how image files are read; None is ImageSettings().
        reading: only `keep_empty_images` and `tables` are used; None is Reading().
        rebuild: ignore an existing table file and write a new one (table_cache.py).

    Items are those of BoxDataset with the field "difficult" (uint8). Boxes are those of the files minus 1, as VOC
    counts pixels from 1, see first_pixel. `ids` are the names in the split file. See `read_voc` for dropped objects.

    Raises:
        FileNotFoundError: a folder, the split file, xml files or images are missing; the first few are named.
        ValueError: a file is not XML, the split is empty, or no image is left to train on.
        OSError: images cannot be decoded; the first few are named.
    """

    evaluates_keypoints = False

    # The background comes first, with a trailing space, as in the forks.
    CLASSES = (
        "__background__ ",
        "aeroplane",
        "bicycle",
        "bird",
        "boat",
        "bottle",
        "bus",
        "car",
        "cat",
        "chair",
        "cow",
        "diningtable",
        "dog",
        "horse",
        "motorbike",
        "person",
        "pottedplant",
        "sheep",
        "sofa",
        "train",
        "tvmonitor",
    )

    def __init__(
        self,
        data_dir: str = "",
        split: str = "",
        use_difficult: bool = False,
        transforms=None,
        *,
        class_names: Sequence[str] | str = CLASSES[1:],
        remove_images_without_annotations: bool = False,
        image_dir: str | None = None,
        annotation_dir: str | None = None,
        split_file: str | None = None,
        first_pixel: int = 1,
        name: str | None = None,
        images: ImageSettings | None = None,
        reading: Reading | None = None,
        rebuild: bool = False,
    ):
        data_dir = os.fspath(data_dir)
        if data_dir and split_file is None:
            split_file = os.path.join(data_dir, "ImageSets", "Main", f"{split}.txt")
        root = os.fspath(image_dir or os.path.join(data_dir, "JPEGImages"))
        annotations = os.fspath(annotation_dir or os.path.join(data_dir, "Annotations"))
        if name is None:
            whole = data_dir or annotations
            part = split or os.path.splitext(os.path.basename(split_file or ""))[0]
            name = "_".join(filter(None, (os.path.basename(os.path.normpath(whole)), part)))
        self.image_set = split
        self.keep_difficult = use_difficult
        report = DatasetReport(name)
        if first_pixel not in (0, 1):
            raise ValueError(f"FIRST_PIXEL of a Pascal VOC dataset is 0 or 1, got {first_pixel!r}")

        def read() -> AnnotationTable:
            file_names = find_by_filename(find_images(root, split_file, annotations), root, annotations, report)
            names = find_class_names(annotations) if class_names == FROM_THE_DATA else list(class_names)
            return read_voc(annotations, file_names, names, use_difficult, report, first_pixel)

        def find_sources() -> tuple[list[str], dict]:
            paths = [os.path.join(annotations, path) for path in list_files(annotations, ".xml")]
            split_files = [] if split_file is None else [split_file]
            return [*paths, *split_files], {"the names of its images": image_names(root)}

        arguments = {
            "split": split,
            "use_difficult": use_difficult,
            "class_names": class_names if class_names == FROM_THE_DATA else list(class_names),
            "remove_images_without_annotations": remove_images_without_annotations,
            "image_dir": absolute(root),
            "annotation_dir": absolute(annotations),
            "split_file": absolute(split_file),
            "first_pixel": first_pixel,
        }
        super().__init__(
            read,
            root,
            annotations,
            "xml",
            report,
            remove_images_without_annotations,
            transforms,
            images,
            reading,
            sources=Sources(annotations, arguments, find_sources),
            rebuild=rebuild,
        )
        self.categories = dict(enumerate((self.CLASSES[0], *self.class_names)))

    def map_class_id_to_class_name(self, class_id: int) -> str:
        """Return the name of label 1..K, or of the background, 0."""
        return self.categories[class_id]
