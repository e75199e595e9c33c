"""Base class of datasets whose reader returns records (records.py): YOLO, LabelMe, Open Images."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

from maskrcnn_benchmark.data.datasets.box_dataset import BoxDataset
from maskrcnn_benchmark.data.datasets.coco_annotations import table_of
from maskrcnn_benchmark.data.datasets.image_settings import ImageSettings
from maskrcnn_benchmark.data.datasets.images import read_headers
from maskrcnn_benchmark.data.datasets.reading import Reading
from maskrcnn_benchmark.data.datasets.report import EXAMPLES, DatasetReport
from maskrcnn_benchmark.data.datasets.sources import Sources


class RecordsDataset(BoxDataset):
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
        self.name = name
        self.image_settings = images or ImageSettings()
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
            report: receives the findings that only the reader of the format can make.
        """


def image_sizes(paths: Sequence[str], settings: ImageSettings, name: str) -> list[tuple[int, int]]:
    """Return the (width, height) that relative coordinates refer to: of the upright image.

    Args:
        paths: of the image files.
        settings: `exif_rotation` "stored" takes the sizes before the EXIF rotation.
        name: of the dataset, for errors.

    Raises:
        FileNotFoundError, OSError: images are missing or cannot be decoded; the first few are named.
    """
    headers = read_headers(paths)
    broken = [i for i, header in enumerate(headers) if isinstance(header, OSError)]
    if broken:
        missing = all(isinstance(headers[i], FileNotFoundError) for i in broken)
        examples = "; ".join(f"{paths[i]}: {headers[i]}" for i in broken[:EXAMPLES])
        what = "are missing" if missing else "cannot be decoded"
        message = (
            f"dataset {name}: {len(broken):,} of {len(paths):,} images {what}: {examples}"
            f"{'; ...' if len(broken) > EXAMPLES else ''}. "
            "Relative coordinates require their sizes."
        )
        raise (FileNotFoundError if missing else OSError)(message)
    stored = settings.exif_rotation == "stored"
    return [(h.height, h.width) if h.quarter_turn and not stored else (h.width, h.height) for h in headers]
