"""Images by path, without ground truth."""

from __future__ import annotations

from torch.utils.data import Dataset

from maskrcnn_benchmark.data.datasets.images import read_image
from maskrcnn_benchmark.structures.bounding_box import BoxList


class ListDataset(Dataset):
    """Read images named one by one.

    Args:
        image_lists: paths.
        transforms: called (image, target) -> (image, target).
        value_range: see `read_image`.

    An item is (image, target), where target is one box over the whole image: something for transforms to work on.
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
