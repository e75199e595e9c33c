import logging
import pickle

import numpy as np
import pytest
from helpers.samples import assert_same_samples
from helpers.semantic_folder import SemanticFolder
from PIL import Image

from maskrcnn_benchmark.data.build import build_dataset
from maskrcnn_benchmark.data.datasets import ConcatDataset, SemanticDataset, semantic
from maskrcnn_benchmark.data.datasets.reading import Reading
from maskrcnn_benchmark.data.datasets.stored_tables import open_stored
from maskrcnn_benchmark.data.datasets.table_cache import TableSettings
from maskrcnn_benchmark.structures.semantic_map import IGNORE_LABEL

CLASSES = ["ground", "cat", "dog"]


@pytest.fixture
def folder(tmp_path):
    return SemanticFolder(tmp_path)


def random_labels(folder, height=20, width=30, classes=3):
    return folder.rng.integers(0, classes, (height, width))


def dataset_of(folder, train=True, classes=CLASSES, **more):
    return SemanticDataset(str(folder.images), str(folder.maps), classes, train, **more)


def labels_of(dataset, index=0):
    return dataset[index][1].get_field("semantic").labels.numpy()


@pytest.mark.parametrize("mode", ["L", "P", "I;16", "RGB"])
def test_maps_of_every_mode_are_read_as_class_numbers(folder, mode):
    labels = random_labels(folder)
    labels[0, :5] = IGNORE_LABEL
    folder.add("a", labels, mode=mode)
    dataset = dataset_of(folder)
    image, target, index = dataset[0]
    assert image.size == (30, 20) and len(target) == 0 and target.size == (30, 20) and index == 0
    assert (labels_of(dataset) == labels).all()
    assert dataset.class_pixels.tolist() == np.bincount(labels[labels < 3], minlength=3).tolist()
    assert dataset.semantic_names == CLASSES and dataset.class_names == []
    assert dataset.report.count("grey maps stored as RGB, read as grey") == (mode == "RGB")


def test_sixteen_bit_values_are_mapped_to_classes(folder):
    labels = random_labels(folder)
    folder.add("a", np.array([7000, 300, 65000])[labels], mode="I;16")
    dataset = dataset_of(folder, values=[7000, 300, 65000])
    assert (labels_of(dataset) == labels).all() and dataset.categories == {7000: "ground", 300: "cat", 65000: "dog"}


def test_ignored_values_have_no_label(folder):
    labels = random_labels(folder, classes=5)
    folder.add("a", labels)
    expected = np.where(labels < 3, labels, IGNORE_LABEL)
    assert (labels_of(dataset_of(folder, ignore=[3, 4])) == expected).all()
    assert (labels_of(dataset_of(folder, ignore="others")) == expected).all()


def test_values_without_a_class_are_refused_with_file_and_remedy(folder):
    folder.add("good", random_labels(folder))
    bad = random_labels(folder)
    bad[3, 3], bad[4, 4] = 9, 200
    folder.add("sub/bad", bad)
    with pytest.raises(ValueError, match=r"1 of 2 maps .* 9, 200 \(sub/bad.png: 9, 200\).*Add the values to IGNORE"):
        dataset_of(folder)


def test_colour_maps_are_refused_with_file_and_remedy(folder):
    folder.add("good", random_labels(folder))
    folder.add("bad", None, size=(30, 20))
    Image.fromarray(folder.rng.integers(0, 3, (20, 30, 3), dtype=np.uint8)).save(folder.maps / "bad.png")
    with pytest.raises(ValueError, match="1 of 2 maps .*bad.png.* is an RGB image in colour.*Convert the colours"):
        dataset_of(folder)


def test_damaged_maps_are_refused(folder):
    folder.add("a", random_labels(folder, 200, 300))
    content = (folder.maps / "a.png").read_bytes()
    (folder.maps / "a.png").write_bytes(content[: len(content) // 2])
    with pytest.raises(OSError, match="1 of 1 maps .* cannot be decoded: a.png"):
        dataset_of(folder)


def test_maps_of_another_resolution_are_resized_and_counted(folder):
    labels = random_labels(folder)
    folder.add("a", labels, size=(60, 40))
    dataset = dataset_of(folder)
    assert (labels_of(dataset) == labels.repeat(2, axis=0).repeat(2, axis=1)).all()
    assert dataset.report.count(SemanticDataset.OTHER_SIZE) == 1


@pytest.mark.parametrize("size", [(20, 30), (31, 20), (60, 44), (30, 10)])
def test_maps_that_do_not_fit_their_image_are_refused(folder, size):
    folder.add("good", random_labels(folder))
    folder.add("bad", random_labels(folder), size=size)
    with pytest.raises(ValueError, match=rf"1 of 2 maps .*bad.png has 30 x 20, bad.jpg {size[0]} x {size[1]}"):
        dataset_of(folder)


def test_images_are_rotated_by_exif_if_their_map_is_rotated(folder):
    folder.add("as_stored", random_labels(folder), orientation=6)
    folder.add("turned", random_labels(folder, 30, 20), size=(30, 20), orientation=6)
    dataset = dataset_of(folder)
    assert dataset[0][0].size == (30, 20) and dataset[1][0].size == (20, 30)
    assert labels_of(dataset, 1).shape == (30, 20)
    assert dataset.report.count("images rotated as EXIF says, because the map has the rotated size") == 1
    assert dataset.report.count("images with an EXIF rotation, used as stored (DATASETS.EXIF_ROTATION: auto)") == 1


def test_images_without_labelled_pixels_are_dropped_in_training_only(folder):
    folder.add("a", np.full((20, 30), IGNORE_LABEL))
    folder.add("b", random_labels(folder))
    assert dataset_of(folder).ids == ["b"] and (labels_of(dataset_of(folder)) < 3).all()
    assert dataset_of(folder, train=False).ids == ["a", "b"]
    for train, action in ((True, "dropped"), (False, "noted")):
        assert f"{action}: 1 image without a labelled pixel (images a)" in str(dataset_of(folder, train).report)
    (folder.maps / "b.png").unlink()
    with pytest.raises(ValueError, match="nothing is left to train on"):
        dataset_of(folder)


def test_without_a_list_images_without_a_map_are_dropped_and_counted(folder, caplog):
    folder.add("a", None, size=(30, 20))
    folder.add("b", random_labels(folder))
    folder.write_map("c.png", random_labels(folder))
    with caplog.at_level(logging.INFO):
        dataset = dataset_of(folder)
    assert dataset.ids == ["b"] and dataset.report.count("images without a map") == 1
    assert dataset.report.count("maps without an image") == 1
    assert "maps: 1 image, 3 semantic classes; dropped: 1 image without a map (images a)" in caplog.text


def test_a_listed_image_without_a_map_is_an_error(folder):
    folder.add("a", None, size=(30, 20))
    folder.add("b", random_labels(folder))
    (folder.root / "list.txt").write_text("a\nb\n")
    with pytest.raises(FileNotFoundError, match="1 of the 2 images in .* have no map in .*: a. Is it the folder"):
        dataset_of(folder, split_file=str(folder.root / "list.txt"))


def test_lossy_maps_are_refused(folder):
    folder.add("a", None, size=(30, 20))
    Image.fromarray(random_labels(folder).astype(np.uint8)).save(folder.maps / "a.jpg")
    with pytest.raises(FileNotFoundError, match=r"1 lossy images \(a.jpg\): a lossy format changes class numbers"):
        dataset_of(folder)
    (folder.maps / "a.jpg").rename(folder.maps / "a.png")
    with pytest.raises(ValueError, match="a.png is a JPEG, a lossy format"):
        dataset_of(folder)


def test_binary_masks_with_ignored_foreground_are_reported(folder, caplog):
    labels = random_labels(folder, classes=2) * 255
    folder.add("a", labels)
    dataset_of(folder, classes=["ground", "cat"])
    assert "every labelled pixel is of class 0 (ground)" in caplog.text
    dataset = dataset_of(folder, classes=["ground", "cat"], values=[0, 255])
    assert (labels_of(dataset) == labels // 255).all()


def test_classes_and_values_must_match(folder):
    folder.add("a", random_labels(folder))
    with pytest.raises(ValueError, match="one distinct value per class"):
        dataset_of(folder, values=[1, 2])
    with pytest.raises(ValueError, match="the pixel values 1 are classes and in IGNORE"):
        dataset_of(folder, ignore=[1])
    with pytest.raises(ValueError, match="expected 1 to 255"):
        dataset_of(folder, classes=[str(k) for k in range(256)])


def test_a_config_block_is_read(folder):
    folder.add("a_left", random_labels(folder))
    folder.write_map("a_id.png", np.array([4, 7, 9])[random_labels(folder)])
    (folder.root / "classes.txt").write_text("4: ground\n7: cat\n9: big dog\n")
    block = folder.block(CLASSES=str(folder.root / "classes.txt"), IGNORE="0, 255", IMAGE_SUFFIX="_left")
    (dataset,) = build_dataset([{**block, "MAP_SUFFIX": "_id.png", "NAME": "pets"}], None)
    assert dataset.ids == ["a"] and dataset.name == "pets" and dataset.semantic_names == ["ground", "cat", "big dog"]
    assert set(np.unique(labels_of(dataset))) <= {0, 1, 2}
    with pytest.raises(ValueError, match="IGNORE of a block should be whole numbers, or 'others', but is 'void'"):
        build_dataset([{**block, "IGNORE": "void"}], None)


def test_datasets_are_joined_and_pickled(folder, tmp_path):
    other = SemanticFolder(tmp_path / "other")
    for each in (folder, other):
        each.add("a", random_labels(each))
    joined = ConcatDataset([dataset_of(folder), dataset_of(other)])
    assert joined.semantic_names == CLASSES and len(joined) == 2
    assert (labels_of(pickle.loads(pickle.dumps(dataset_of(folder)))) == labels_of(joined)).all()
    with pytest.raises(ValueError, match="different semantic classes"):
        ConcatDataset([dataset_of(folder), dataset_of(other, classes=["ground", "dog", "cat"])])


KEPT = Reading(tables=TableSettings("always"))


def test_a_later_start_decodes_no_map(folder, monkeypatch):
    for name in ("a", "b", "c"):
        folder.add(name, random_labels(folder, classes=4), mode="RGB" if name == "b" else "L")
    folder.add("d", np.full((20, 30), IGNORE_LABEL))
    wanted = dataset_of(folder, ignore=[3], reading=Reading(tables=TableSettings("never")))
    first = dataset_of(folder, ignore=[3], reading=KEPT)
    monkeypatch.setattr(semantic, "summarize_maps", None)
    found = dataset_of(folder, ignore=[3], reading=KEPT)
    again = open_stored(found.table_file)
    assert wanted.table_file is None and first.table_file == found.table_file == again.table_file
    for dataset in (first, found, pickle.loads(pickle.dumps(found)), again):
        assert_same_samples(dataset, wanted)
        assert dataset.class_pixels.tolist() == wanted.class_pixels.tolist() and dataset.values == wanted.values
        assert [dataset.map_path(k) for k in range(3)] == [wanted.map_path(k) for k in range(3)]


def test_changed_and_added_maps_are_noticed(folder):
    folder.add("a", np.zeros((20, 30), dtype=int))
    before = dataset_of(folder, reading=KEPT)
    folder.write_map("a.png", np.ones((20, 30), dtype=int))
    changed = dataset_of(folder, reading=KEPT)
    folder.add("b", np.full((20, 30), 2))
    more = dataset_of(folder, reading=KEPT)
    pixels = [dataset.class_pixels.tolist() for dataset in (before, changed, more)]
    assert pixels == [[600, 0, 0], [0, 600, 0], [0, 600, 600]]
    assert before.table_file == changed.table_file == more.table_file
    assert dataset_of(folder, values=[0, 2, 1], reading=KEPT).table_file != more.table_file


def test_the_config_decides_about_tables_of_maps(folder):
    folder.add("a", random_labels(folder))
    block = {**folder.block(), "CLASSES": CLASSES}
    (dataset,) = build_dataset([block], None, is_train=True, reading=KEPT)
    assert dataset.table_file.startswith(str(folder.maps / ".mb_tables" / "maps."))
    (dataset,) = build_dataset([block], None, is_train=True)
    assert dataset.table_file is None
