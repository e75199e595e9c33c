"""Dataset of image files without ground truth."""

from __future__ import annotations

from torch.utils.data import Dataset

from maskrcnn_benchmark.data.datasets.images import read_image
from maskrcnn_benchmark.structures.bounding_box import BoxList


class ListDataset(Dataset):
    """Images from a list of paths.

    Args:
        image_lists: paths.
        transforms: (image, target) -> (image, target).
        value_range: see `read_image`.

    An item is (image, target). The target is a BoxList with one box over the whole image, for the transforms.
    """

    def __init__(self, image_lists, transforms=None, value_range: tuple[float, float] | None = None):
        self.image_lists = image_lists
        self.transforms = transforms
        self.value_range = value_range

    def __len__(self) -> int:
        return len(self.image_lists)

    def __getitem__(self, index: int):
        image = read_image(self.image_lists[index], value_range=self.value_range)
        width, height = image.size
        target = BoxList([[0, 0, width, height]], (width, height), mode="xyxy")
        if self.transforms is not None:
            image, target = self.transforms(image, target)
        return image, target
