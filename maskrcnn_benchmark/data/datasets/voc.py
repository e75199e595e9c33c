"""Pictures with boxes from Pascal VOC xml."""

from __future__ import annotations

import os
from collections.abc import Sequence

from maskrcnn_benchmark.data.datasets.box_dataset import BoxDataset
from maskrcnn_benchmark.data.datasets.image_settings import ImageSettings
from maskrcnn_benchmark.data.datasets.reading import Reading
from maskrcnn_benchmark.data.datasets.report import DatasetReport
from maskrcnn_benchmark.data.datasets.voc_annotations import find_class_names, find_pictures, read_voc

FROM_THE_DATA = "from the data"


class PascalVOCDataset(BoxDataset):
    """The pictures of one split, in the order of the split file.

    Args:
        data_dir: folder with Annotations/NAME.xml, JPEGImages/NAME.jpg and ImageSets/Main/SPLIT.txt.
        split: "train", "val", "test", ...
        use_difficult: keep objects that are marked as difficult.
        transforms: called (image, target) -> (image, target); None gives PIL pictures.
        class_names: K names, label k is class_names[k - 1]; or "from the data": the names of all objects in the
            annotation folder, in alphabetic order.
        remove_images_without_annotations: leave out pictures that have no usable box (for training).
        image_dir, annotation_dir, split_file: where these are, if not where data_dir says. Without data_dir, no
            split_file means all pictures that have an xml file.
        name: what messages call the data set; default: the name of data_dir and the split.
        images: how image files are read; None is ImageSettings().
        reading: choices of the configuration, of which `keep_empty_images` counts here; None takes its defaults.

    Items are as BoxDataset has them, with the field "difficult" (uint8). Boxes are the files' minus 1, as VOC counts
    pixels from 1. `ids` are the names in the split file. See `read_voc` for what is dropped.

    Raises:
        FileNotFoundError: a folder, the split file, xml files or pictures are missing; the first few are named.
        ValueError: a file is not XML, the split is empty, or nothing is left to train on.
        OSError: pictures cannot be decoded; the first few are named.
    """

    evaluates_keypoints = False

    # The background comes first, with a blank, as in the forks.
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
        name: str | None = None,
        images: ImageSettings | None = None,
        reading: Reading | None = None,
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
        file_names = find_pictures(root, split_file, annotations)
        names = find_class_names(annotations) if class_names == FROM_THE_DATA else list(class_names)
        table = read_voc(annotations, file_names, names, use_difficult, report)
        super().__init__(
            table, root, annotations, "xml", report, remove_images_without_annotations, transforms, images, reading
        )
        self.categories = dict(enumerate((self.CLASSES[0], *self.class_names)))

    def map_class_id_to_class_name(self, class_id: int) -> str:
        """The name of label 1..K; 0 is the background."""
        return self.categories[class_id]
