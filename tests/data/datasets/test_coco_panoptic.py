import json
import logging
import pickle

import numpy as np
import pytest
import torch
from helpers.panoptic_folder import CAT, CATEGORIES, DOG, GRASS, SKY, PanopticFolder
from helpers.samples import assert_same_samples
from PIL import Image

from maskrcnn_benchmark.data.datasets import COCODataset, COCOPanopticDataset, ConcatDataset, coco_panoptic
from maskrcnn_benchmark.data.datasets.image_settings import ImageSettings
from maskrcnn_benchmark.data.datasets.reading import Reading
from maskrcnn_benchmark.data.datasets.stored_tables import open_stored
from maskrcnn_benchmark.data.datasets.table_cache import TableSettings
from maskrcnn_benchmark.data.transforms import Compose, RandomHorizontalFlip, Resize
from maskrcnn_benchmark.structures.semantic_map import IGNORE_LABEL


@pytest.fixture
def folder(tmp_path, rng_seed):
    return PanopticFolder(tmp_path / "data")


def dataset_of(folder, train=True, transforms=None, **changes):
    arguments = folder.write(**changes.pop("content", {}))
    return COCOPanopticDataset(
        **arguments,
        remove_images_without_annotations=train,
        transforms=transforms,
        **{"segments_dir": str(folder.root / "segments"), **changes},
    )


def test_an_item_has_things_as_objects_and_a_semantic_map(folder):
    ids = folder.add(5, [(700000, GRASS, (0, 15, 40, 15)), (9, CAT, (5, 10, 20, 12)), (70, DOG, (20, 12, 10, 8))])
    dataset = dataset_of(folder)
    image, target, index = dataset[0]
    assert image.size == (40, 30) and index == 0 and dataset.image_id(0) == 5
    assert target.bbox.tolist() == [[5, 10, 24, 21], [20, 12, 29, 19]]
    assert target.get_field("labels").tolist() == [1, 2]
    masks = target.get_field("masks").get_mask_tensor().numpy()
    assert (masks[0] == (ids == 9)).all() and (masks[1] == (ids == 70)).all()
    semantic = target.get_field("semantic").labels.numpy()
    assert (semantic[ids == 700000] == 1).all() and (semantic[ids == 0] == IGNORE_LABEL).all()
    assert (semantic[(ids == 9) | (ids == 70)] == 0).all()


def test_class_names_are_things_then_stuff_in_file_order(folder):
    folder.add(1, [(1, DOG, (0, 0, 9, 9))])
    dataset = dataset_of(folder)
    assert dataset.class_names == ["cat", "dog"] and dataset.stuff_names == ["grass", "sky"]
    assert dataset.semantic_names == ["things", "grass", "sky"]
    assert dataset.contiguous_category_id_to_json_id == {1: CAT, 2: DOG}
    assert dataset.stuff_category_ids == {1: GRASS, 2: SKY}
    assert dataset.categories == {CAT: "cat", DOG: "dog"}


def test_crowd_segments_are_neither_objects_nor_void(folder):
    folder.add(1, [(4, CAT, (0, 0, 20, 20), {"iscrowd": 1}), (6, DOG, (25, 5, 10, 10))])
    dataset = dataset_of(folder)
    target = dataset[0][1]
    assert len(target) == 1 and (target.get_field("semantic").labels[:20, :20] == 0).all()
    assert "1 crowd region (annotation ids 1/4)" in str(dataset.report)
    assert dataset.panoptic(0).segments == [
        {"label": 1, "is_thing": True, "crowd": True},
        {"label": 2, "is_thing": True, "crowd": False},
    ]


def test_masks_and_map_follow_the_transforms(folder):
    folder.add(1, [(3, SKY, (0, 0, 40, 10)), (4, CAT, (5, 12, 20, 12))])
    target = dataset_of(folder, transforms=Compose([Resize(60, None), RandomHorizontalFlip(1.0)]))[0][1]
    masks, semantic = target.get_field("masks").get_mask_tensor(), target.get_field("semantic").labels
    assert target.size == (80, 60) and semantic.shape == masks.shape == (60, 80)
    assert (semantic[:19] == 2).all()
    assert ((semantic == 0) | (masks == 0)).all() and masks.sum() > 0.85 * 40 * 24


def test_images_without_things_are_dropped_in_training(folder):
    folder.add(1, [(3, SKY, (0, 0, 40, 10))])
    folder.add(2, [(3, CAT, (0, 0, 9, 10))])
    (folder.root / "segments" / "1.png").rename(folder.root / "not_needed.png")
    trained = dataset_of(folder)
    assert trained.ids == [2] and (trained[0][1].get_field("semantic").labels[:10, :9] == 0).all()
    (folder.root / "not_needed.png").rename(folder.root / "segments" / "1.png")
    tested = dataset_of(folder, train=False)
    assert tested.ids == [1, 2] and len(tested[0][1]) == 0
    assert tested[0][1].get_field("masks").get_mask_tensor().shape == (0, 30, 40)


def test_unusable_entries_are_dropped_and_counted(folder):
    folder.add(1, [(2, 55, (0, 0, 5, 5)), (3, GRASS, (5, 5, 5, 5)), (4, CAT, (10, 10, 6, 6))])
    folder.annotations[0]["segments_info"] += [
        {"id": 3, "category_id": CAT, "bbox": [5, 5, 5, 5]},
        {"id": "x7", "category_id": CAT, "bbox": [5, 5, 5, 5]},
        {"id": 8, "category_id": DOG},
    ]
    folder.annotations.append({"image_id": 9, "file_name": "9.png", "segments_info": []})
    folder.annotations.append(dict(folder.annotations[0], segments_info=[]))
    folder.images.append({"id": 6, "file_name": "6.jpg"})
    dataset = dataset_of(folder)
    assert dataset.ids == [1] and len(dataset[0][1]) == 1
    semantic = dataset[0][1].get_field("semantic").labels
    assert (semantic[:5, :5] == IGNORE_LABEL).all() and (semantic[5:10, 5:10] == 1).all()
    report = str(dataset.report)
    for line in (
        "1 segment of unknown categories (annotation ids 1/2)",
        "1 segment with the id of an earlier segment of its image (annotation ids 1/3)",
        "1 segment whose id is not an integer in 1..16777215 (annotation ids 1/x7)",
        "1 box that is missing, not four numbers, or not finite (annotation ids 1/8)",
        "1 panoptic annotation of unknown images (image ids 9)",
        "1 repeated panoptic annotation of an image (image ids 1)",
        "1 image without a panoptic annotation (image ids 6)",
    ):
        assert line in report


def test_files_without_images_segments_or_things_are_read(folder):
    assert len(dataset_of(folder, train=False)) == 0
    folder.add(1, [])
    folder.add(2, [(3, SKY, (0, 0, 40, 30))])
    dataset = dataset_of(folder, train=False)
    assert [len(dataset.panoptic(index).segments) for index in range(2)] == [0, 1]
    assert (dataset[0][1].get_field("semantic").labels == IGNORE_LABEL).all()
    with pytest.raises(ValueError, match="nothing is left to train on"):
        dataset_of(folder)


def test_a_map_of_another_size_is_cut_or_padded_and_counted(folder):
    folder.add(1, [(3, GRASS, (0, 0, 40, 30)), (4, CAT, (10, 10, 6, 6))], map_size=(50, 20))
    with pytest.raises(ValueError, match="1 of 1 segment maps have another size.*SIZE_MISMATCH: keep"):
        dataset_of(folder)
    dataset = dataset_of(folder, images=ImageSettings(size_mismatch="keep"))
    semantic = dataset[0][1].get_field("semantic").labels
    assert semantic.shape == (30, 40) and (semantic[20:] == IGNORE_LABEL).all() and (semantic[:10] == 1).all()
    assert dataset.report.count("segment maps of another size than their image, cut or padded without labels") == 1


def test_images_and_maps_of_half_the_size_are_scaled_together(folder):
    folder.add(1, [(3, GRASS, (0, 0, 40, 30)), (4, CAT, (10, 10, 6, 8))])
    path = folder.root / "images" / "1.jpg"
    Image.open(path).resize((20, 15)).save(path)
    dataset = dataset_of(folder, images=ImageSettings(size_mismatch="scale"))
    target = dataset[0][1]
    assert target.bbox.tolist() == [[5, 5, 7, 8]] and target.size == (20, 15)
    assert target.get_field("masks").instances.masks.sum() == 12
    assert target.get_field("semantic").labels[5:9, 5:8].max() == 0


@pytest.mark.parametrize("mode, word", [("P", "palette"), ("L", "grey")])
def test_maps_resaved_in_another_mode_are_refused(folder, mode, word):
    folder.add(1, [(7001, GRASS, (0, 0, 40, 30)), (70002, CAT, (10, 10, 6, 6))])
    path = folder.root / "segments" / "1.png"
    Image.open(path).convert(mode).save(path)
    with pytest.raises(ValueError, match=f"{word} mode .* lost the ids of their segments.*8-bit RGB png"):
        dataset_of(folder)


def test_palette_with_the_exact_colours_is_read(folder):
    folder.add(1, [(3, GRASS, (0, 0, 40, 30)), (70002, CAT, (10, 10, 6, 6))])
    path = folder.root / "segments" / "1.png"
    expected = dataset_of(folder)[0][1].get_field("semantic").labels
    Image.open(path).convert("P", palette=Image.Palette.ADAPTIVE).save(path)
    assert (dataset_of(folder)[0][1].get_field("semantic").labels == expected).all()


def test_segments_without_pixels_and_pixels_without_segments_are_counted(folder):
    folder.add(1, [(3, GRASS, (0, 0, 40, 30)), (4, CAT, (10, 10, 6, 6)), (5, CAT, (10, 10, 6, 6))])
    folder.annotations[0]["segments_info"].pop(0)
    dataset = dataset_of(folder)
    assert dataset.report.count("segments without a pixel") == 1
    assert "1 segment map with pixels of no segment of the json, read as unlabelled (1,164 pixels)" in str(
        dataset.report
    )
    assert len(dataset[0][1]) == 1


def test_maps_of_another_json_are_refused(folder):
    folder.add(1, [(3, GRASS, (0, 0, 40, 30)), (4, CAT, (10, 10, 6, 6))])
    for segment in folder.annotations[0]["segments_info"]:
        segment["id"] += 1000
    with pytest.raises(ValueError, match="2 of 2 segments of the json have no pixel.*Is SEGMENTS the folder"):
        dataset_of(folder)


def test_missing_and_damaged_maps_are_refused_at_the_start(folder):
    for number in range(1, 8):
        folder.add(number, [(3, CAT, (0, 0, 40, 30))])
    maps = folder.root / "segments"
    (maps / "2.png").write_bytes((maps / "2.png").read_bytes()[:60])
    with pytest.raises(OSError, match="1 of 7 segment maps in .* cannot be decoded: 2.png. Is SEGMENTS"):
        dataset_of(folder)
    for number in range(2, 8):
        (maps / f"{number}.png").unlink()
    with pytest.raises(FileNotFoundError, match="6 of 7 .* are missing: 2.png, 3.png, 4.png, 5.png, 6.png, ..."):
        dataset_of(folder)
    with pytest.raises(FileNotFoundError, match="folder elsewhere of the segment maps does not exist"):
        dataset_of(folder, segments_dir="elsewhere")


def test_other_kinds_of_files_are_refused(folder):
    folder.add(1, [(3, CAT, (0, 0, 40, 30))])
    without = [{key: category[key] for key in ("id", "name")} for category in CATEGORIES]
    with pytest.raises(ValueError, match="not every category has 'isthing'.*FORMAT: coco"):
        dataset_of(folder, content={"categories": without})
    boxes = [{"id": 1, "image_id": 1, "category_id": CAT, "bbox": [0, 0, 5, 5]}]
    with pytest.raises(ValueError, match="no list 'segments_info'.*FORMAT: coco"):
        dataset_of(folder, content={"annotations": boxes})
    stuff = [{"id": 100 + k, "name": f"stuff {k}", "isthing": 0} for k in range(255)]
    with pytest.raises(ValueError, match="257 stuff classes; at most 254"):
        dataset_of(folder, content={"categories": CATEGORIES + stuff})


def write_instances(folder, **changes):
    triangle = [[6.0, 6, 16, 6, 6, 26]]
    things = [{key: category[key] for key in ("id", "name")} for category in CATEGORIES if category["isthing"]]
    rows = [{"id": 8, "image_id": 1, "category_id": DOG, "bbox": [6, 6, 10, 20], "segmentation": triangle}]
    content = {"images": folder.images, "annotations": rows, "categories": things, **changes}
    (folder.root / "instances.json").write_text(json.dumps(content))
    return str(folder.root / "instances.json")


def test_objects_can_come_from_an_instances_file(folder):
    folder.add(1, [(3, CAT, (0, 0, 40, 30))])
    other = {"id": 2, "file_name": "2.jpg", "width": 40, "height": 30}
    instances = write_instances(folder, images=[*folder.images, other])
    dataset = dataset_of(folder, instances_file=instances)
    target = dataset[0][1]
    assert dataset.ids == [1] and dataset.ann_file == instances
    assert target.get_field("labels").tolist() == [2] and target.bbox.tolist() == [[6, 6, 15, 25]]
    assert target.get_field("masks").mode == "poly" and (target.get_field("semantic").labels == 0).all()


def test_an_instances_file_that_does_not_fit_is_refused(folder):
    folder.add(1, [(3, CAT, (0, 0, 40, 30))])
    things = [{"id": DOG, "name": "dog"}, {"id": CAT, "name": "cat"}]
    with pytest.raises(ValueError, match=r"\(3, 'dog'\) is in the place of \(1, 'cat'\)"):
        dataset_of(folder, instances_file=write_instances(folder, categories=things))
    other = [{"id": 2, "file_name": "2.jpg"}]
    with pytest.raises(ValueError, match="lacks 1 of the images .* image id 1"):
        dataset_of(folder, instances_file=write_instances(folder, images=other, annotations=[]))


def test_dataset_is_pickled_and_logs_its_totals(folder, caplog):
    folder.add(1, [(3, CAT, (0, 0, 40, 30))])
    with caplog.at_level(logging.INFO):
        dataset = dataset_of(folder, name="animals")
    assert "animals: 1 image, 1 box, 2 classes" in caplog.text
    again = pickle.loads(pickle.dumps(dataset))
    assert torch.equal(again[0][1].get_field("semantic").labels, dataset[0][1].get_field("semantic").labels)


def test_concatenated_datasets_require_the_same_stuff_classes(folder, tmp_path):
    folder.add(1, [(3, CAT, (0, 0, 40, 30))])
    other = PanopticFolder(tmp_path / "other")
    other.add(1, [(3, CAT, (0, 0, 40, 30))])
    same = ConcatDataset([dataset_of(folder), dataset_of(other)])
    assert same.semantic_names == ["things", "grass", "sky"]
    renamed = [dict(category, name=category["name"].replace("sky", "sea")) for category in CATEGORIES]
    with pytest.raises(ValueError, match="different semantic classes.*sky.*sea"):
        ConcatDataset([dataset_of(folder), dataset_of(other, content={"categories": renamed})])


def test_real_images_have_the_objects_of_their_instances_file(shared_data):
    data = shared_data("coco_panoptic_mini")
    files = {
        split: (data / "annotations" / f"panoptic_{split}.json", data / "images" / split)
        for split in ("train2017", "val2017")
    }
    for split, (ann_file, images) in files.items():
        instances = data / "annotations" / f"instances_from_panoptic_{split}.json"
        ours = COCOPanopticDataset(str(ann_file), str(images), False)
        same = COCODataset(str(instances), str(images), False)
        assert len(ours.class_names) == 80 and len(ours.semantic_names) == 54
        for index in range(len(ours)):
            target, wanted = ours[index][1], same[index][1]
            assert torch.equal(target.bbox, wanted.bbox)
            assert torch.equal(target.get_field("labels"), wanted.get_field("labels"))
            masks, wanted_masks = (each.get_field("masks").get_mask_tensor() for each in (target, wanted))
            assert torch.equal(masks, wanted_masks)
            pixels = np.asarray(target.get_field("semantic").labels)
            assert ((masks.reshape(-1, *pixels.shape).amax(dim=0).numpy() == 0) | (pixels == 0)).all()


@pytest.mark.parametrize("train", [False, True])
def test_a_later_start_reads_neither_the_json_nor_the_maps(folder, train, monkeypatch):
    folder.add(5, [(700000, GRASS, (0, 15, 40, 15)), (9, CAT, (5, 10, 20, 12)), (70, DOG, (20, 12, 10, 8))])
    folder.add(3, [(4, CAT, (0, 0, 20, 20), {"iscrowd": 1}), (6, SKY, (25, 5, 10, 10))])
    folder.add(7, [(1, DOG, (0, 0, 9, 9))])
    arguments = {**folder.write(), "segments_dir": str(folder.root / "segments")}

    def opened(mode):
        reading = Reading(tables=TableSettings(mode))
        return COCOPanopticDataset(**arguments, remove_images_without_annotations=train, reading=reading)

    wanted, first = opened("never"), opened("always")
    for name in ("read_panoptic", "read_headers", "check_segment_ids"):
        monkeypatch.setattr(coco_panoptic, name, None)
    found = opened("always")
    again = open_stored(found.table_file)
    assert wanted.table_file is None and first.table_file == found.table_file == again.table_file
    for dataset in (first, found, pickle.loads(pickle.dumps(found)), again):
        assert_same_samples(dataset, wanted)
        assert dataset.stuff_category_ids == wanted.stuff_category_ids
        assert dataset.contiguous_category_id_to_json_id == wanted.contiguous_category_id_to_json_id
        for index in range(len(wanted)):
            assert dataset.panoptic(index).segments == wanted.panoptic(index).segments
            assert (dataset.panoptic(index).unpack() == wanted.panoptic(index).unpack()).all()


def test_a_changed_json_rebuilds_the_table(folder):
    folder.add(5, [(9, CAT, (5, 10, 20, 12))])
    kept = Reading(tables=TableSettings("always"))
    before = dataset_of(folder, reading=kept)
    folder.add(6, [(9, CAT, (5, 10, 20, 12))])
    after = dataset_of(folder, reading=kept)
    assert (len(before), len(after)) == (1, 2) and before.table_file == after.table_file
