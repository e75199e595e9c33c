"""Several data sets one after the other."""

from __future__ import annotations

import bisect
from collections.abc import Sequence

from torch.utils.data import ConcatDataset as TorchConcatDataset

from maskrcnn_benchmark.data.label_space import describe_classes


class ConcatDataset(TorchConcatDataset):
    """Data sets joined into one; items are theirs, but the index is the joined one.

    Args:
        datasets: at least one; they must agree on their `class_names` and `semantic_names`.

    Raises:
        ValueError: they do not, or there is no data set.
    """

    def __init__(self, datasets: Sequence):
        if not datasets:
            raise ValueError("ConcatDataset got no data set")
        super().__init__(datasets)
        first, *others = self.datasets
        for other in others:
            for kind, names_of in (("classes", "class_names"), ("semantic classes", "semantic_names")):
                names, other_names = (list(getattr(each, names_of, None) or []) for each in (first, other))
                if other_names != names:
                    raise ValueError(
                        f"the training sets have different {kind}: {_name(first)} {describe_classes(names)}, "
                        f"{_name(other)} {describe_classes(other_names)}. "
                        f"Sets that are trained on together need the same classes in the same order."
                    )

    @property
    def parts(self) -> list:
        return self.datasets

    @property
    def class_names(self) -> list[str]:
        return self.datasets[0].class_names

    @property
    def semantic_names(self) -> list[str] | None:
        return getattr(self.datasets[0], "semantic_names", None)

    @property
    def categories(self) -> dict | None:
        """Name by category id, if all sets use the same ids."""
        first, *others = [getattr(dataset, "categories", None) for dataset in self.datasets]
        return first if all(other == first for other in others) else None

    def get_idxs(self, idx: int) -> tuple[int, int]:
        """(which data set, index in it) of a joined index."""
        dataset = bisect.bisect_right(self.cumulative_sizes, idx)
        return dataset, idx - (self.cumulative_sizes[dataset - 1] if dataset > 0 else 0)

    def __getitem__(self, idx: int):
        dataset, sample = self.get_idxs(idx)
        image, target, _ = self.datasets[dataset][sample]
        return image, target, idx

    def get_img_info(self, idx: int) -> dict:
        dataset, sample = self.get_idxs(idx)
        return self.datasets[dataset].get_img_info(sample)

    def path(self, idx: int) -> str:
        """Return the path of the image file."""
        dataset, sample = self.get_idxs(idx)
        return self.datasets[dataset].path(sample)

    def image_id(self, idx: int):
        """What the annotation file calls the picture; two of the joined sets may use the same id."""
        dataset, sample = self.get_idxs(idx)
        return self.datasets[dataset].image_id(sample)


def _name(dataset) -> str:
    return getattr(dataset, "name", type(dataset).__name__)
