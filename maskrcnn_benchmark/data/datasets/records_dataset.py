"""Base class of datasets whose reader returns records (records.py): YOLO, LabelMe, Open Images."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

from maskrcnn_benchmark.data.datasets.box_dataset import BoxDataset
from maskrcnn_benchmark.data.datasets.coco_annotations import table_of
from maskrcnn_benchmark.data.datasets.image_checks import UNDECODABLE, headers_of, refuse_broken
from maskrcnn_benchmark.data.datasets.image_settings import ImageSettings
from maskrcnn_benchmark.data.datasets.reading import Reading
from maskrcnn_benchmark.data.datasets.report import DatasetReport
from maskrcnn_benchmark.data.datasets.sources import Sources


class RecordsDataset(BoxDataset, ABC):
    """Images whose annotations a subclass reads as records. Training and COCO evaluation both call `read_records`.

    Args:
        root: folder that the records' file names are relative to.
        annotations: annotation file or folder, for messages.
        source: name of the annotation format, for messages.
        remove_images_without_annotations: drop images without a usable box (for training).
        transforms, images, reading, rebuild: see BoxDataset.
        name: name of the dataset in messages.
        sources: files that `read_records` reads.

    Items: see BoxDataset. Targets have "masks" if any object has a segmentation, and "keypoints" if any has keypoints.

    Attributes, besides those of BoxDataset:
        json_category_id_to_contiguous_id, contiguous_category_id_to_json_id: category id <-> label.

    Raises:
        FileNotFoundError, OSError, ValueError: see BoxDataset, and `table_of`.
        TypeError: the subclass has no `read_records`.
    """

    def __init__(
        self,
        root: str,
        annotations: str,
        source: str,
        remove_images_without_annotations: bool,
        transforms=None,
        *,
        name: str,
        images: ImageSettings | None = None,
        reading: Reading | None = None,
        sources: Sources,
        rebuild: bool = False,
    ):
        report = DatasetReport(name)
        super().__init__(
            lambda: table_of(self.read_records(report), annotations, report, self.reading),
            root,
            annotations,
            source,
            report,
            remove_images_without_annotations,
            transforms,
            images,
            reading,
            sources=sources,
            rebuild=rebuild,
        )
        self.json_category_id_to_contiguous_id = {number: k for k, number in enumerate(self.categories, start=1)}
        self.contiguous_category_id_to_json_id = dict(enumerate(self.categories, start=1))

    @abstractmethod
    def read_records(self, report: DatasetReport) -> dict:
        """Return "categories", "images" and "annotations", see records.py.

        Args:
            report: receives the findings that are specific to the format.
        """

    def upright_sizes(self, file_names: Mapping[str, str]) -> dict[str, tuple[int, int]]:
        """Return the (width, height) that relative coordinates refer to, by image id.

        It is the size after the EXIF rotation, or before it if `image_settings.exif_rotation` is "stored". Headers are
        read once; the image checks and evaluation reuse them.

        Args:
            file_names: image files by image id, relative to the root.

        Raises:
            OSError: images cannot be decoded; the first few are named. If `leave_out` does not raise, they are missing
                in the result instead.
        """
        if hasattr(self, "_samples"):
            known = zip(self.ids, self.image_sizes.tolist(), strict=True)
            return {image_id: tuple(size) for image_id, size in known if image_id in file_names}
        names = list(file_names.values())
        headers = dict(zip(file_names, headers_of(self.root, names, {}), strict=True))
        broken = {image_id: header for image_id, header in headers.items() if isinstance(header, OSError)}
        if broken:
            places = [(image_id, f"{file_names[image_id]}: {header}") for image_id, header in broken.items()]
            try:
                refuse_broken(self.name, self.root, self.annotations, names, list(headers.values()))
            except OSError as error:
                self.leave_out(UNDECODABLE, places, error)
            headers = {image_id: header for image_id, header in headers.items() if image_id not in broken}
        self._known_headers = {file_names[image_id]: header for image_id, header in headers.items()}
        stored = self.image_settings.exif_rotation == "stored"
        return {
            image_id: (h.height, h.width) if h.quarter_turn and not stored else (h.width, h.height)
            for image_id, h in headers.items()
        }
