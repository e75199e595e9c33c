"""Build datasets and data loaders from cfg."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

import torch
from torch.utils.data import BatchSampler, DataLoader, Dataset

from maskrcnn_benchmark.config.checks import check_values
from maskrcnn_benchmark.config.paths_catalog import DatasetCatalog
from maskrcnn_benchmark.data import datasets as dataset_classes
from maskrcnn_benchmark.data.collate_batch import BatchCollator, BBoxAugCollator
from maskrcnn_benchmark.data.datasets import ConcatDataset
from maskrcnn_benchmark.data.datasets.box_dataset import BoxDataset
from maskrcnn_benchmark.data.datasets.image_settings import image_settings
from maskrcnn_benchmark.data.datasets.reading import Reading
from maskrcnn_benchmark.data.datasets.table_cache import TableSettings
from maskrcnn_benchmark.data.samplers import (
    DistributedSampler,
    GroupedBatchSampler,
    SampleKey,
    ShardSampler,
    TrainingBatchSampler,
)
from maskrcnn_benchmark.data.samplers.build import (  # noqa: F401  # two are re-exported for the forks
    aspect_groups,
    make_batch_data_sampler,
    make_data_sampler,
)
from maskrcnn_benchmark.data.seeding import LOADER, SAMPLE, seeded, stream_seeds
from maskrcnn_benchmark.data.transforms import build_transforms
from maskrcnn_benchmark.data.watched_loader import WatchedLoader
from maskrcnn_benchmark.data.worker_process import start_worker
from maskrcnn_benchmark.utils import comm

logger = logging.getLogger(__name__)

# The forks train on an image of COCO's person keypoints only if it has at least this many visible keypoints.
COCO_VISIBLE_KEYPOINTS = 10


class SeededDataset(Dataset):
    """Dataset indexed by `SampleKey`. The random numbers of a sample depend only on (seed, epoch, position).

    The states of the global generators are restored after each sample, so that loading in the training process
    (NUM_WORKERS 0) does not change the training's random numbers.
    """

    def __init__(self, dataset, seed: int):
        self.dataset = dataset
        self.seed = seed

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: SampleKey):
        index, epoch, position = key
        with seeded(SAMPLE, self.seed, epoch, position):
            return self.dataset[index]

    @property
    def parts(self) -> list:
        return self.dataset.parts

    @property
    def class_names(self) -> list[str]:
        return self.dataset.class_names

    @property
    def semantic_names(self) -> list[str] | None:
        return getattr(self.dataset, "semantic_names", None)

    @property
    def categories(self) -> dict | None:
        return getattr(self.dataset, "categories", None)

    def path(self, index: int) -> str:
        return self.dataset.path(index)

    def image_id(self, index: int):
        return self.dataset.image_id(index)

    def get_img_info(self, index: int) -> dict:
        return self.dataset.get_img_info(index)


def reading_of(cfg) -> Reading:
    """Build the options for reading annotations from cfg."""
    return Reading(
        keep_empty_images=cfg.DATASETS.KEEP_EMPTY_IMAGES,
        crowd_as_objects=cfg.DATASETS.CROWD_AS_OBJECTS,
        keep_placeholder_categories=cfg.DATASETS.KEEP_PLACEHOLDER_CATEGORIES,
        min_visible_keypoints=cfg.DATASETS.MIN_VISIBLE_KEYPOINTS,
        keypoint_flip_pairs=cfg.INPUT.KEYPOINT_FLIP_PAIRS,
        keep_keypoints=cfg.MODEL.KEYPOINT_ON,
        tables=TableSettings(cfg.DATASETS.TABLE, cfg.DATASETS.TABLE_DIR),
    )


def build_dataset(
    dataset_list,
    transforms,
    dataset_catalog=DatasetCatalog,
    is_train: bool = True,
    root: str = "",
    images=None,
    reading: Reading | None = None,
    specialize: Callable[[type[BoxDataset]], type[BoxDataset]] | None = None,
):
    """Build datasets from catalog names and inline blocks.

    Args:
        dataset_list: names (str) and blocks (dict), see DATASETS.TRAIN.
        transforms: (image, target) -> (image, target), used by all datasets.
        dataset_catalog: has `get(entry, root)`, which returns {"factory", "args"}, and `name(entry)`.
        is_train: drop images without usable annotations, and concatenate the datasets.
        root: the data folder; "" uses $MB_DATASETS, else "datasets".
        images: see `image_settings(cfg)`; None is ImageSettings().
        reading: see `reading_of(cfg)`; None is Reading().
        specialize: maps the class of each BoxDataset to the subclass to build instead.

    Returns:
        In training, a list of one dataset. In testing, a list of one dataset per entry.

    Raises:
        ValueError: dataset_list is not a list, it is empty in training, or the catalog names an unknown dataset class.
    """
    if isinstance(dataset_list, (str, dict)):
        raise ValueError(f"DATASETS.TRAIN and TEST must be lists of names and blocks, got {dataset_list!r}")
    built = []
    for entry in dataset_list:
        description = dataset_catalog.get(entry, root)
        factory, args = description["factory"], dict(description["args"])
        if not hasattr(dataset_classes, factory):
            raise ValueError(
                f"dataset {entry!r} requires a {factory}, which does not exist; available are "
                f"{', '.join(dataset_classes.__all__)}. COCO json can also be read with an inline block."
            )
        kind = getattr(dataset_classes, factory)
        if issubclass(kind, BoxDataset):
            args["remove_images_without_annotations"] = is_train
            args["name"] = dataset_catalog.name(entry)
            args["images"] = images
            args["reading"] = _for_entry(reading or Reading(), entry)
            kind = specialize(kind) if specialize else kind
        if factory == "PascalVOCDataset":
            args["use_difficult"] = not is_train
        built.append(kind(transforms=transforms, **args))
    if not is_train:
        return built
    if not built:
        raise ValueError("DATASETS.TRAIN is empty: name at least one dataset to train on")
    return [built[0] if len(built) == 1 else ConcatDataset(built)]


def _disable_horizontal_flip(cfg, dataset) -> None:
    """Disable the horizontal flip of datasets with named keypoints if no name contains left or right.

    `check_annotations` raises for names with sides that cannot be paired, and for keypoints without names.
    """
    if not cfg.MODEL.KEYPOINT_ON or cfg.INPUT.HORIZONTAL_FLIP_PROB_TRAIN == 0:
        return
    for part in getattr(dataset, "parts", []):
        if not isinstance(part, BoxDataset) or part.num_keypoints == 0 or not part.is_without_sides:
            continue
        without_flip = cfg.clone()
        without_flip.defrost()
        without_flip.INPUT.HORIZONTAL_FLIP_PROB_TRAIN = 0.0
        part.set_transforms(build_transforms(without_flip, is_train=True))
        logger.warning(
            f"training set {part.name}: images are not flipped, because it is unknown which of the keypoints "
            f"{', '.join(part.keypoint_names)} swap in a mirrored image. Set INPUT.KEYPOINT_FLIP_PAIRS to the pairs, "
            f"or to [] if none swap; or set INPUT.HORIZONTAL_FLIP_PROB_TRAIN to 0."
        )


def _for_entry(reading: Reading, entry) -> Reading:
    """Resolve MIN_VISIBLE_KEYPOINTS -1 to the forks' rule: 10 per image for COCO's own keypoint files, else 0."""
    if reading.min_visible_keypoints >= 0:
        return reading
    of_coco = isinstance(entry, str) and entry.startswith("keypoints_coco_")
    return replace(reading, min_visible_keypoints=COCO_VISIBLE_KEYPOINTS if of_coco else 0)


def make_data_loader(
    cfg, is_train: bool = True, is_distributed: bool = False, start_iter: int = 0, is_for_period: bool = False
):
    """Build the data loaders for training or testing.

    Args:
        cfg: see DATASETS, DATALOADER, INPUT, SOLVER, TEST.
        is_train: build the training loader; False builds the test loaders.
        is_distributed: divide the data between the processes of the process group.
        start_iter: optimizer steps already done; the training loader skips their batches.
        is_for_period: with is_train False, build one loader for validation losses during training. It yields the
            annotated images of all test sets, resized and normalised, with the same number of batches per process.

    Returns:
        In training, one loader of micro-batches of IMS_PER_BATCH / (processes x ACCUMULATION_STEPS) images. `len()` is
        MAX_ITER x ACCUMULATION_STEPS, including the skipped ones.
        In testing, a list of one loader per test set. Each process gets its own part of the images, in batches of
        TEST.IMS_PER_BATCH / processes, at least 1.
        Batches are (ImageList, tuple of BoxLists, tuple of dataset indices). With TEST.BBOX_AUG.ENABLED test batches
        have a tuple of unmodified PIL images in place of the ImageList.
        `loader.dataset` has class_names, image_id(i) and get_img_info(i).

    Raises:
        ValueError: the batch size is not divisible by the number of processes, or a dataset is invalid (see its class).
    """
    check_values(cfg, is_train=is_train)
    rank, world_size = (comm.get_rank(), comm.get_world_size()) if is_distributed else (0, 1)
    if is_for_period and not is_train:
        return _validation_loader(cfg, rank, world_size)
    entries = cfg.DATASETS.TRAIN if is_train else cfg.DATASETS.TEST
    raw_images = not is_train and cfg.TEST.BBOX_AUG.ENABLED
    transforms = None if raw_images else build_transforms(cfg, is_train)
    built = build_dataset(
        entries, transforms, DatasetCatalog, is_train, cfg.DATASETS.ROOT, image_settings(cfg), reading_of(cfg)
    )
    if not is_train:
        return [_test_loader(cfg, dataset, rank, world_size) for dataset in built]

    dataset = built[0]
    _disable_horizontal_flip(cfg, dataset)
    batch_sampler = TrainingBatchSampler(
        aspect_groups(dataset) if cfg.DATALOADER.ASPECT_RATIO_GROUPING else [0] * len(dataset),
        cfg.SOLVER.IMS_PER_BATCH,
        cfg.SOLVER.MAX_ITER,
        cfg.SEED,
        start_iteration=start_iter,
        rank=rank,
        world_size=world_size,
        accumulation_steps=cfg.SOLVER.ACCUMULATION_STEPS,
    )
    collate = BatchCollator(cfg.DATALOADER.SIZE_DIVISIBILITY)
    return _loader(cfg, SeededDataset(dataset, cfg.SEED), batch_sampler, collate)


def refuse_empty_test_set(dataset) -> None:
    """Raise ValueError if a test set has no images."""
    if len(dataset) == 0:
        raise ValueError(f"dataset {getattr(dataset, 'name', '')!r} of DATASETS.TEST has no images")


def _test_loader(cfg, dataset, rank: int, world_size: int) -> DataLoader:
    refuse_empty_test_set(dataset)
    images_per_batch = max(1, cfg.TEST.IMS_PER_BATCH // world_size)
    groups = aspect_groups(dataset) if cfg.DATALOADER.ASPECT_RATIO_GROUPING else [0] * len(dataset)
    shard = ShardSampler(len(dataset), world_size, rank)
    aug = cfg.TEST.BBOX_AUG.ENABLED
    collate = BBoxAugCollator() if aug else BatchCollator(cfg.DATALOADER.SIZE_DIVISIBILITY)
    return _loader(cfg, dataset, GroupedBatchSampler(shard, groups, images_per_batch), collate)


def _validation_loader(cfg, rank: int, world_size: int) -> DataLoader:
    if not cfg.DATASETS.TEST:
        raise ValueError("DATASETS.TEST is empty: name at least one dataset to test on during training")
    transforms, images = build_transforms(cfg, is_train=False), image_settings(cfg)
    (dataset,) = build_dataset(
        cfg.DATASETS.TEST, transforms, DatasetCatalog, True, cfg.DATASETS.ROOT, images, reading_of(cfg)
    )
    images_per_batch = max(1, cfg.TEST.IMS_PER_BATCH // world_size)
    # DistributedSampler pads to equal lengths, so that no process waits for another one's last batch
    share = DistributedSampler(dataset, world_size, rank, shuffle=False)
    batches = BatchSampler(share, images_per_batch, drop_last=False)
    return _loader(cfg, dataset, batches, BatchCollator(cfg.DATALOADER.SIZE_DIVISIBILITY))


def _loader(cfg, dataset, batch_sampler, collate) -> DataLoader:
    # Without its own generator a loader draws its base seed from the global one, whose state differs after resuming.
    generator = torch.Generator().manual_seed(stream_seeds(LOADER, cfg.SEED)[0] & 0x7FFFFFFFFFFFFFFF)
    return WatchedLoader(
        dataset,
        batch_sampler=batch_sampler,
        num_workers=cfg.DATALOADER.NUM_WORKERS,
        timeout=cfg.DATALOADER.TIMEOUT,
        collate_fn=collate,
        pin_memory=cfg.MODEL.DEVICE.startswith("cuda") and torch.cuda.is_available(),
        worker_init_fn=start_worker,
        generator=generator,
    )
