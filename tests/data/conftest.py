"""Small COCO datasets on disk."""

from __future__ import annotations

import pytest
from helpers.coco_folder import CocoFolder

from maskrcnn_benchmark.config import cfg as defaults


@pytest.fixture
def coco_folder(tmp_path):
    return CocoFolder(tmp_path)


@pytest.fixture
def make_coco_folder(tmp_path):
    """Return make(name, categories), which creates further datasets."""

    def make(name: str, categories=("cat", "dog")) -> CocoFolder:
        (tmp_path / name).mkdir()
        return CocoFolder(tmp_path / name, categories)

    return make


@pytest.fixture
def loader_cfg():
    """Return make(train, test, *overrides), which builds a cfg for loaders of small images without workers."""

    def make(train=(), test=(), *overrides):
        cfg = defaults.clone()
        cfg.defrost()
        cfg.DATASETS.TRAIN = tuple(_block(entry) for entry in train)
        cfg.DATASETS.TEST = tuple(_block(entry) for entry in test)
        cfg.merge_from_list(
            ["MODEL.DEVICE", "cpu", "DATALOADER.NUM_WORKERS", 0, "SOLVER.IMS_PER_BATCH", 4, "SOLVER.MAX_ITER", 6]
            + ["INPUT.MIN_SIZE_TRAIN", (32, 40, 48), "INPUT.MAX_SIZE_TRAIN", 96]
            + ["INPUT.MIN_SIZE_TEST", 40, "INPUT.MAX_SIZE_TEST", 96]
            + list(overrides)
        )
        return cfg

    def _block(args: dict) -> dict:
        return {"FORMAT": "coco", "IMAGES": args["root"], "ANNOTATIONS": args["ann_file"]}

    return make


@pytest.fixture
def counted():
    """Return counted(value): a str or int equal to the value, whose comparisons add to `counted.comparisons`."""

    def counted(value):
        return kinds[type(value)](value)

    def counting(base, name):
        def compare(self, other):
            counted.comparisons += 1
            return getattr(base, name)(self, other)

        return compare

    def kind_of(base, **more):
        methods = {name: counting(base, name) for name in ("__eq__", "__ne__")}
        return type(f"Counted_{base.__name__}", (base,), {**methods, "__hash__": base.__hash__, **more})

    kinds = {str: kind_of(str, __str__=lambda self: self), int: kind_of(int)}
    counted.comparisons = 0
    return counted
