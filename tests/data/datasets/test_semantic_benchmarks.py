import numpy as np
import pytest
from helpers.semantic_folder import SemanticFolder
from PIL import Image

from maskrcnn_benchmark.data.build import build_dataset
from maskrcnn_benchmark.data.datasets import CityscapesSemanticDataset
from maskrcnn_benchmark.structures.semantic_map import IGNORE_LABEL

RNG = np.random.default_rng(0)


def write(path, labels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(labels.astype(np.uint8)).save(path)


@pytest.fixture
def voc(tmp_path):
    root = tmp_path / "voc" / "VOC2012"
    folder = SemanticFolder(root)
    folder.images.rename(root / "JPEGImages")
    folder.images, folder.maps = root / "JPEGImages", root / "SegmentationClass"
    folder.add("2007_000001", RNG.integers(0, 21, (20, 30)), mode="P")
    for name in ("2007_000001", "2008_000002"):
        folder.maps = root / "SegmentationClassAug"
        folder.add(name, RNG.integers(0, 21, (20, 30)))
    lists = root / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "val.txt").write_text("2007_000001\n")
    files = "/JPEGImages/{0}.jpg /SegmentationClassAug/{0}.png\n"
    (lists / "train_aug.txt").write_text(files.format("2007_000001") + files.format("2008_000002"))
    return tmp_path


def test_voc_is_read_from_its_published_layout(voc):
    names = ["voc_2012_seg_val", "voc_2012_seg_train_aug", "voc_2012_seg_val_aug"]
    official, augmented, evaluated = build_dataset(names, None, is_train=False, root=str(voc))
    assert official.ids == evaluated.ids == ["2007_000001"] and augmented.ids == ["2007_000001", "2008_000002"]
    assert len(official.semantic_names) == 21 and official.semantic_names[15] == "person"
    assert official.map_path(0) != augmented.map_path(0) == evaluated.map_path(0)
    assert augmented.name == "voc_2012_seg_train_aug"


def test_the_list_of_the_augmented_set_has_two_spellings(voc):
    lists = voc / "voc" / "VOC2012" / "ImageSets" / "Segmentation"
    (lists / "train_aug.txt").rename(lists / "trainaug.txt")
    assert len(build_dataset(["voc_2012_seg_train_aug"], None, root=str(voc))[0]) == 2


@pytest.fixture
def cityscapes(tmp_path):
    root = tmp_path / "cityscapes"
    ids, train_ids = np.array([7, 26, 9, 0, 33, 10]), np.array([0, 13, 255, 255, 18, 255])
    which = RNG.integers(0, 6, (20, 30))
    name = "aachen/aachen_000000_000019"
    pixels = RNG.integers(0, 256, (20, 30, 3), dtype=np.uint8)
    path = root / "leftImg8bit" / "train" / f"{name}_leftImg8bit.png"
    path.parent.mkdir(parents=True)
    Image.fromarray(pixels).save(path)
    labels = root / "gtFine" / "train"
    write(labels / f"{name}_gtFine_labelIds.png", ids[which])
    write(labels / f"{name}_gtFine_labelTrainIds.png", train_ids[which])
    Image.fromarray(pixels).save(labels / f"{name}_gtFine_color.png")
    return root, train_ids[which]


@pytest.mark.parametrize("labels", ["labelIds", "labelTrainIds"])
def test_cityscapes_labels_are_train_ids(cityscapes, labels):
    root, expected = cityscapes
    dataset = CityscapesSemanticDataset(str(root / "leftImg8bit"), str(root / "gtFine"), "train", labels, True)
    assert dataset.ids == ["aachen/aachen_000000_000019"] and len(dataset.semantic_names) == 19
    found = dataset[0][1].get_field("semantic").labels.numpy()
    assert (found == expected).all() and (found == IGNORE_LABEL).any()


def test_cityscapes_has_a_catalog_name_and_a_block(cityscapes):
    root, expected = cityscapes
    block = {"FORMAT": "cityscapes_semantic", "IMAGES": "cityscapes/leftImg8bit", "ANNOTATIONS": "cityscapes/gtFine"}
    entries = ["cityscapes_fine_sem_seg_train", {**block, "SPLIT": "train", "LABELS": "labelTrainIds", "NAME": "mine"}]
    for dataset in build_dataset(entries, None, is_train=False, root=str(root.parent)):
        assert (dataset[0][1].get_field("semantic").labels.numpy() == expected).all()
    for path in (root / "gtFine").rglob("*labelIds.png"):
        path.unlink()
    (dataset,) = build_dataset(entries[:1], None, root=str(root.parent))
    assert dataset.map_path(0).endswith("labelTrainIds.png")
