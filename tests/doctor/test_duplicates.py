"""Near-duplicate images within and across datasets."""

import numpy as np
from helpers.clinic import block
from helpers.scenes import random_scene
from PIL import Image

from maskrcnn_benchmark.config import cfg as default_cfg
from maskrcnn_benchmark.doctor.duplicates import FLAT, MAX_DISTANCE, Hashes, duplicate_findings, near_pairs
from maskrcnn_benchmark.doctor.examine import config_of_file, read_splits


def scene(rng) -> Image.Image:
    return random_scene(rng, (270, 160))


def add(clinic, image: Image.Image, name: str, **options):
    number = len(clinic.images) + 1
    clinic.add_image(number, image.size, file_name=name)
    image.save(clinic.root / "images" / name, **options)
    clinic.add_box(number, [5, 6, 20, 20])


def test_copies_in_another_size_format_and_brightness_are_found_and_others_are_not(clinic, rng):
    original = scene(rng)
    add(clinic, original, "1.png")
    for number in range(2, 22):
        add(clinic, scene(rng), f"{number}.jpg")
    add(clinic, original.resize((200, 130)), "22.jpg", quality=40)
    add(clinic, Image.eval(original, lambda value: value * 0.9 + 12), "23.jpg")
    add(clinic, original.convert("L"), "24.png")
    add(clinic, original.transpose(Image.Transpose.FLIP_LEFT_RIGHT), "25.png")
    for number in (26, 27):
        add(clinic, Image.new("RGB", (90, 80), (9, 9, number)), f"{number}.png")  # flat images are not compared
    splits = read_splits(config_of_file(clinic.write()["ann_file"], None), False)
    (finding,) = duplicate_findings(splits)
    assert [each.image_id for each in finding.examples] == [22, 23, 24] and finding.count == 3
    assert all(each.note == "like image 1" for each in finding.examples) and finding.severity == "note"


def test_copies_between_training_and_test_data_are_a_warning(two_splits, rng):
    train, test, _ = two_splits
    image = scene(rng)
    add(train, scene(rng), "1.png")
    add(train, image, "2.png")
    add(test, image, "1.jpg")
    cfg = default_cfg.clone()
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = (block(train, "bees_train"),), (block(test, "bees_val"),)
    (finding,) = duplicate_findings(read_splits(cfg))
    assert finding.severity == "warning" and finding.splits == ("bees_train", "bees_val")
    (example,) = finding.examples
    assert (example.split, example.image_id, example.note) == ("bees_val", 1, "like image 2 of bees_train")


def test_bands_find_all_pairs_that_comparing_all_finds(rng):
    number = 300
    base = rng.integers(0, 256, (number // 3, 8, 9), dtype=np.uint8)
    pixels = np.concatenate([base, base, base]).astype(int)
    pixels[number // 3 :] += rng.integers(-3, 4, (number - number // 3, 8, 9))
    hashes = Hashes(pixels.clip(0, 255).astype(np.uint8), pixels.std(axis=(1, 2)) >= FLAT)
    found = {tuple(pair) for pair in near_pairs(hashes).tolist()}
    bits = np.unpackbits(hashes.bands.view(np.uint8), axis=1)
    distances = (bits[:, None] != bits[None]).sum(axis=2)
    first_of = [int(np.flatnonzero(row == 0)[0]) for row in distances]  # equal hashes are paired with the first only
    expected = {
        (i, j)
        for i in range(number)
        for j in range(i + 1, number)
        if distances[i, j] <= MAX_DISTANCE and (first_of[i] == i and first_of[j] == j or first_of[j] == i)
    }
    assert expected and found == expected


def test_many_copies_of_one_image_take_one_pair_each():
    pixels = np.tile(np.arange(72, dtype=np.uint8).reshape(1, 8, 9) * 3, (5000, 1, 1))
    assert len(near_pairs(Hashes(pixels, np.ones(5000, dtype=bool)))) == 4999
