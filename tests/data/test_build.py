import gc
import random

import numpy as np
import pytest
import torch

from maskrcnn_benchmark.data import build, make_data_loader
from maskrcnn_benchmark.data.datasets import ConcatDataset


@pytest.fixture
def pets(coco_folder):
    """11 images, 6 wide and 5 tall."""
    for image_id in range(11):
        size = (60, 40) if image_id % 2 == 0 else (40, 60)
        coco_folder.add_image(image_id, size=size)
        coco_folder.add_box(image_id, [5 + image_id, 6, 20, 10], category_id=1 + image_id % 2)
    return coco_folder.write()


def content(batches):
    return [
        (images.tensors, [target.bbox for target in targets], [t.get_field("labels") for t in targets], indices)
        for images, targets, indices in batches
    ]


def assert_same(first, second):
    assert len(first) == len(second)
    for (images, boxes, labels, indices), (images2, boxes2, labels2, indices2) in zip(first, second, strict=True):
        assert indices == indices2 and torch.equal(images, images2)
        assert all(map(torch.equal, boxes, boxes2)) and all(map(torch.equal, labels, labels2))


def test_training_batch_is_images_targets_indices(loader_cfg, pets):
    loader = make_data_loader(loader_cfg([pets], [], "DATALOADER.SIZE_DIVISIBILITY", 32))
    assert len(loader) == 6
    batches = list(loader)
    assert len(batches) == 6
    for images, targets, indices in batches:
        assert images.tensors.shape[:2] == (4, 3) and images.tensors.dtype == torch.float32
        assert images.tensors.shape[2] % 32 == 0 and images.tensors.shape[3] % 32 == 0
        assert isinstance(targets, tuple) and isinstance(indices, tuple) and len(targets) == len(indices) == 4
        for target, size, index in zip(targets, images.image_sizes, indices, strict=True):
            assert target.size == (size[1], size[0]) and len(target) == 1
            assert target.get_field("labels").tolist() == [1 + index % 2]
        assert len({index % 2 for index in indices}) == 1  # wide and tall are not mixed
    assert loader.dataset.class_names == ["cat", "dog"] and loader.dataset.categories == {1: "cat", 2: "dog"}
    assert loader.dataset.image_id(3) == 3 and loader.dataset.get_img_info(3)["height"] == 60


def test_grouping_can_be_switched_off(loader_cfg, pets):
    loader = make_data_loader(loader_cfg([pets], [], "DATALOADER.ASPECT_RATIO_GROUPING", False))
    assert any(len({index % 2 for index in indices}) == 2 for _, _, indices in loader)


def test_batches_do_not_depend_on_the_number_of_workers(loader_cfg, pets):
    overrides = ["INPUT.BRIGHTNESS", 0.4, "INPUT.HUE", 0.1]
    alone = content(make_data_loader(loader_cfg([pets], [], *overrides)))
    two = content(make_data_loader(loader_cfg([pets], [], *overrides, "DATALOADER.NUM_WORKERS", 2)))
    assert_same(alone, two)


def test_seed_changes_the_batches(loader_cfg, pets):
    first = content(make_data_loader(loader_cfg([pets])))
    other = content(make_data_loader(loader_cfg([pets], [], "SEED", 1)))
    assert [batch[3] for batch in first] != [batch[3] for batch in other]


@pytest.mark.parametrize("start", [1, 3, 5])
def test_start_iter_gives_the_remaining_batches(loader_cfg, pets, start):
    whole = content(make_data_loader(loader_cfg([pets])))
    assert_same(content(make_data_loader(loader_cfg([pets]), start_iter=start)), whole[start:])


def test_an_image_is_augmented_differently_in_each_epoch(loader_cfg, pets):
    showings = {}
    for images, _, indices in make_data_loader(loader_cfg([pets], [], "SOLVER.MAX_ITER", 40)):
        for image, index in zip(images.tensors, indices, strict=True):
            showings.setdefault(index, set()).add((tuple(image.shape), float(image.sum())))
    assert all(len(kinds) > 2 for kinds in showings.values())


def test_accumulation_parts_form_the_whole_batch(loader_cfg, pets):
    whole = [batch[3] for batch in content(make_data_loader(loader_cfg([pets])))]
    loader = make_data_loader(loader_cfg([pets], [], "SOLVER.ACCUMULATION_STEPS", 2))
    parts = [batch[3] for batch in content(loader)]
    assert len(loader) == len(parts) == 12
    assert [parts[2 * i] + parts[2 * i + 1] for i in range(6)] == whole


def test_two_processes_see_the_batch_of_one(loader_cfg, pets, monkeypatch):
    whole = content(make_data_loader(loader_cfg([pets])))
    monkeypatch.setattr(build.comm, "get_world_size", lambda: 2)
    ranks = []
    for rank in range(2):
        monkeypatch.setattr(build.comm, "get_rank", lambda rank=rank: rank)
        ranks.append(content(make_data_loader(loader_cfg([pets]), is_distributed=True)))
    for batch, first, second in zip(whole, *ranks, strict=True):
        assert first[3] + second[3] == batch[3]
        # same images and augmentation; only the padding differs between processes
        for mine, one in zip(first[1] + second[1], batch[1], strict=True):
            assert torch.equal(mine, one)


def test_three_processes_cannot_share_four_images(loader_cfg, pets, monkeypatch):
    monkeypatch.setattr(build.comm, "get_world_size", lambda: 3)
    with pytest.raises(ValueError, match="IMS_PER_BATCH must be a multiple of 3 .*got 4"):
        make_data_loader(loader_cfg([pets]), is_distributed=True)


@pytest.mark.parametrize("workers", [0, 2])
def test_loading_does_not_change_global_random_states(loader_cfg, pets, rng_seed, workers):
    def states():
        return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()

    before = states()
    cfg = loader_cfg([pets], [pets], "INPUT.BRIGHTNESS", 0.4, "DATALOADER.NUM_WORKERS", workers)
    list(make_data_loader(cfg))
    for loader in make_data_loader(cfg, is_train=False):
        list(loader)
    assert states() == before


def test_test_loaders_yield_every_image_once(loader_cfg, pets, make_coco_folder):
    other = make_coco_folder("other")
    other.add_image(1)
    other.add_image(2)
    cfg = loader_cfg([], [pets, other.write()], "TEST.IMS_PER_BATCH", 4)
    loaders = make_data_loader(cfg, is_train=False)
    assert len(loaders) == 2
    seen = [sorted(index for _, _, indices in loader for index in indices) for loader in loaders]
    assert seen == [list(range(11)), [0, 1]]  # includes images without objects
    sizes = [len(indices) for _, _, indices in loaders[0]]
    assert sum(sizes) == 11 and max(sizes) == 4
    assert loaders[1].dataset.name == "boxes"


def test_test_images_are_divided_between_processes(loader_cfg, pets, monkeypatch):
    cfg = loader_cfg([], [pets], "TEST.IMS_PER_BATCH", 1)
    monkeypatch.setattr(build.comm, "get_world_size", lambda: 2)
    seen = []
    for rank in range(2):
        monkeypatch.setattr(build.comm, "get_rank", lambda rank=rank: rank)
        (loader,) = make_data_loader(cfg, is_train=False, is_distributed=True)
        seen.append([index for _, _, indices in loader for index in indices])
    assert sorted(sum(seen, [])) == list(range(11)) and abs(len(seen[0]) - len(seen[1])) == 1


def test_training_sets_are_concatenated(loader_cfg, pets, make_coco_folder):
    other = make_coco_folder("other")
    other.add_image(77)
    other.add_box(77, [1, 1, 9, 9], category_id=2)
    loader = make_data_loader(loader_cfg([pets, other.write()]))
    joined = loader.dataset.dataset
    assert isinstance(joined, ConcatDataset) and len(joined) == 12
    assert loader.dataset.image_id(11) == 77 and loader.dataset.class_names == ["cat", "dog"]
    seen = {index for _, _, indices in loader for index in indices}
    assert seen == set(range(12))  # indices of the concatenated dataset


def test_training_sets_with_different_classes_are_refused(loader_cfg, pets, make_coco_folder):
    other = make_coco_folder("other", categories=("dog", "cat"))
    other.add_image(1)
    other.add_box(1, [1, 1, 9, 9])
    with pytest.raises(ValueError, match=r"boxes \(cat, dog\), boxes \(dog, cat\)"):
        make_data_loader(loader_cfg([pets, other.write()]))


def test_nothing_to_train_on_is_an_error(loader_cfg):
    with pytest.raises(ValueError, match="DATASETS.TRAIN is empty"):
        make_data_loader(loader_cfg([], []))
    assert make_data_loader(loader_cfg([], []), is_train=False) == []


def test_a_test_set_without_images_is_refused_before_training(loader_cfg, coco_folder):
    (coco_folder.root / "images").mkdir()
    with pytest.raises(ValueError, match="'boxes' of DATASETS.TEST has no images"):
        make_data_loader(loader_cfg([], [coco_folder.write()]), is_train=False)


def test_a_catalog_name_is_looked_up_below_the_data_root(loader_cfg, tmp_path):
    cfg = loader_cfg()
    cfg.DATASETS.ROOT = str(tmp_path)
    cfg.DATASETS.TEST = ("coco_2014_minival",)
    with pytest.raises(FileNotFoundError, match="coco/annotations/instances_minival2014.json"):
        make_data_loader(cfg, is_train=False)


def test_an_inline_blocks_name_is_the_datasets_name(loader_cfg, pets):
    cfg = loader_cfg([], [pets])
    cfg.DATASETS.TEST = ({**cfg.DATASETS.TEST[0], "NAME": "pets_test"},)
    (loader,) = make_data_loader(cfg, is_train=False)
    assert loader.dataset.name == "pets_test"


def test_an_unreadable_image_in_a_worker_is_named(loader_cfg, pets, coco_folder):
    loader = make_data_loader(loader_cfg([pets], [], "DATALOADER.NUM_WORKERS", 1, "SOLVER.MAX_ITER", 1))
    for path in (coco_folder.root / "images").iterdir():
        path.unlink()
    with pytest.raises(RuntimeError, match=r"image .*\.jpg \(image id \d+\) failed: FileNotFoundError"):
        list(loader)
    gc.collect()  # torch waits 5 s for a worker after an error; wait here instead of in a later test


def test_workers_run_one_thread(loader_cfg, pets, monkeypatch):
    from maskrcnn_benchmark.data.datasets import COCODataset

    original = COCODataset.__getitem__

    def item(self, index):
        image, target, index = original(self, index)
        target.add_field("threads", torch.tensor([torch.get_num_threads()]))
        return image, target, index

    monkeypatch.setattr(COCODataset, "__getitem__", item)
    for _, targets, _ in make_data_loader(loader_cfg([pets], [], "DATALOADER.NUM_WORKERS", 1)):
        assert targets[0].get_field("threads").item() == 1


def test_validation_loader_has_equal_parts_of_all_test_sets(loader_cfg, coco_folder, monkeypatch):
    for image_id in range(7):
        coco_folder.add_image(image_id, size=(60, 40))
    for image_id in range(5):  # two images have no object
        coco_folder.add_box(image_id, [5, 6, 20, 10], category_id=1)
    cfg = loader_cfg([], [coco_folder.write()], "TEST.IMS_PER_BATCH", 4)
    (loader,) = [make_data_loader(cfg, is_train=False, is_for_period=True)]
    assert [indices for _, _, indices in loader] == [(0, 1, 2, 3), (4,)]
    monkeypatch.setattr(build.comm, "get_world_size", lambda: 2)
    parts = []
    for rank in range(2):
        monkeypatch.setattr(build.comm, "get_rank", lambda rank=rank: rank)
        loader = make_data_loader(cfg, False, True, 0, True)
        parts.append([indices for _, _, indices in loader])
    assert parts == [[(0, 1), (2,)], [(3, 4), (0,)]]
