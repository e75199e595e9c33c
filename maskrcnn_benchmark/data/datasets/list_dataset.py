"""Pictures by path, without ground truth."""

from __future__ import annotations

from torch.utils.data import Dataset

from maskrcnn_benchmark.data.datasets.pictures import read_picture
from maskrcnn_benchmark.structures.bounding_box import BoxList


class ListDataset(Dataset):
    """Pictures named one by one.

    Args:
        image_lists: paths.
        transforms: called (image, target) -> (image, target).

    An item is (image, target), where target is one box over the whole picture: something for transforms to work on.
    """

    def __init__(self, image_lists, transforms=None):
        self.image_lists = image_lists
        self.transforms = transforms

    def __len__(self) -> int:
        return len(self.image_lists)

    def __getitem__(self, index: int):
        image = read_picture(self.image_lists[index])
        width, height = image.size
        target = BoxList([[0, 0, width, height]], (width, height), mode="xyxy")
        if self.transforms is not None:
            image, target = self.transforms(image, target)
        return image, target
