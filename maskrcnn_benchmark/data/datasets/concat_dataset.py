"""Concatenate datasets."""

from __future__ import annotations

import bisect
from collections.abc import Sequence

import numpy as np
from torch.utils.data import ConcatDataset as TorchConcatDataset

from maskrcnn_benchmark.data.label_space import describe_classes


class ConcatDataset(TorchConcatDataset):
    """Concatenation of datasets. Items carry the index into the concatenation.

    Args:
        datasets: at least one, all with the same `class_names` and `semantic_names`.

    Raises:
        ValueError: the datasets' names differ, or there is no dataset.
    """

    def __init__(self, datasets: Sequence):
        if not datasets:
            raise ValueError("ConcatDataset requires at least one dataset, got none")
        super().__init__(datasets)
        first, *others = self.datasets
        for other in others:
            for kind, names_of in (("classes", "class_names"), ("semantic classes", "semantic_names")):
                names, other_names = (list(getattr(each, names_of, None) or []) for each in (first, other))
                if other_names != names:
                    raise ValueError(
                        f"the training sets have different {kind}: {_name(first)} {describe_classes(names)}, "
                        f"{_name(other)} {describe_classes(other_names)}. "
                        f"Datasets trained on together require the same classes in the same order."
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
        """Names by category id, or None if the datasets use different ids."""
        first, *others = [getattr(dataset, "categories", None) for dataset in self.datasets]
        return first if all(other == first for other in others) else None

    def get_idxs(self, idx: int) -> tuple[int, int]:
        """Return (number of the dataset, index in it) for an index into the concatenation."""
        dataset = bisect.bisect_right(self.cumulative_sizes, idx)
        return dataset, idx - (self.cumulative_sizes[dataset - 1] if dataset > 0 else 0)

    def __getitem__(self, idx: int):
        dataset, sample = self.get_idxs(idx)
        image, target, _ = self.datasets[dataset][sample]
        return image, target, idx

    def get_img_info(self, idx: int) -> dict:
        dataset, sample = self.get_idxs(idx)
        return self.datasets[dataset].get_img_info(sample)

    @property
    def image_sizes(self) -> np.ndarray | None:
        """Width and height of all images, (I, 2) int64; None if a dataset has no `image_sizes`."""
        sizes = [getattr(dataset, "image_sizes", None) for dataset in self.datasets]
        return None if any(each is None for each in sizes) else np.concatenate(sizes)

    def path(self, idx: int) -> str:
        """Return the path of the image file."""
        dataset, sample = self.get_idxs(idx)
        return self.datasets[dataset].path(sample)

    def image_id(self, idx: int):
        """Return the image's id in its annotation file. Ids of different datasets may coincide."""
        dataset, sample = self.get_idxs(idx)
        return self.datasets[dataset].image_id(sample)


def _name(dataset) -> str:
    return getattr(dataset, "name", type(dataset).__name__)
