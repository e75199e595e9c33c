"""What is wrong with images, boxes and polygons, with the image and annotation ids of each."""

import numpy as np
from helpers.clinic import named
from PIL import Image

from maskrcnn_benchmark.doctor.examine import config_of_file
from maskrcnn_benchmark.doctor.pairs import pairs_in_groups

BIG = (200, 100)


def places(finding):
    return [(each.image_id, each.annotation_id) for each in finding.examples]


def test_a_clean_dataset_has_no_findings(clinic):
    for number in (1, 2):
        clinic.add_image(number)
        clinic.add_box(number, [5, 6, 20, 20], 1)
        clinic.add_box(number, [30, 6, 20, 20], 2)
    diagnosis = clinic.diagnose()
    assert diagnosis.findings == [] and diagnosis.status(strict=True) == 0 and diagnosis.headline() == "nothing found"
    (split,) = diagnosis.splits
    assert (split.images, split.boxes, split.class_counts) == (2, 4, {"cat": 2, "dog": 2})
    assert split.sizes["16-32"] == 4 and sum(split.sizes.values()) == 4


def test_every_unreadable_and_missing_image_is_listed_and_the_others_are_examined(clinic):
    for number in range(1, 6):
        path = clinic.add_image(number)
        clinic.add_box(number, [5, 6, 20, 20])
        if number in (2, 3):
            path.write_bytes(b"not an image")
        if number == 4:
            path.unlink()
    diagnosis = clinic.diagnose()
    broken, missing = (named(diagnosis, "images-unreadable", part)[0] for part in ("decoded", "missing"))
    assert [each.image_id for each in broken.examples] == [2, 3] and broken.severity == "error"
    assert [each.image_id for each in missing.examples] == [4] and missing.count == 1
    assert diagnosis.splits[0].images == 2 and diagnosis.status() == 1


def test_truncated_grey_deep_and_turned_images_are_found(clinic):
    truncated = clinic.add_image(1, BIG)
    truncated.write_bytes(truncated.read_bytes()[:-300])
    exif = Image.Exif()
    exif[0x0112] = 6
    clinic.add_image(2, BIG, exif=exif)
    for number, values in ((3, np.uint8(7)), (4, np.uint16(700))):
        clinic.add_image(number, (60, 40), file_name=f"{number}.png")
        Image.fromarray(np.full((40, 60), values)).save(clinic.root / "images" / f"{number}.png")
    for number in range(1, 5):
        clinic.add_box(number, [5, 6, 20, 20])
    diagnosis = clinic.diagnose()

    def of(part):
        (finding,) = (each for each in diagnosis.findings if part in each.title and each.examples)
        return [each.image_id for each in finding.examples]

    assert of("truncated images") == [1] and of("EXIF rotation") == [2]
    assert of("mode L ") == [3] and of("more than 8 bits") == [4]


def test_boxes_that_training_drops_keep_their_image_and_annotation_ids(clinic):
    clinic.add_image(1)
    clinic.add_box(1, [5, 6, 20, 20])
    flat = clinic.add_box(1, [5, 6, 0, 20])
    outside = clinic.add_box(1, [500, 6, 20, 20])
    unknown = clinic.add_box(9, [5, 6, 20, 20])
    diagnosis = clinic.diagnose()
    for part, expected in (
        ("boxes without area", (1, flat)),
        ("outside the image", (1, outside)),
        ("unknown images", (9, unknown)),
    ):
        (finding,) = named(diagnosis, "training-dropped", part)
        assert places(finding) == [expected] and finding.remedy and finding.severity == "warning"
    assert diagnosis.status() == 0 and diagnosis.status(strict=True) == 1


def test_repeated_nearly_equal_and_nested_boxes_are_told_apart(clinic):
    clinic.add_image(1, BIG)
    first = clinic.add_box(1, [10, 10, 50, 50])
    same = clinic.add_box(1, [10, 10, 50, 50])
    near = clinic.add_box(1, [100, 10, 50, 50])
    other = clinic.add_box(1, [101, 10, 50, 50])
    inner = clinic.add_box(1, [15, 15, 20, 20])
    clinic.add_box(1, [101, 11, 48, 48], category_id=2)  # another class
    diagnosis = clinic.diagnose()
    (repeated,) = named(diagnosis, "training-noted", "image, class and box of another")
    assert places(repeated) == [(1, same)] and repeated.severity == "warning"
    (nearly,) = named(diagnosis, "nearly-same-boxes")
    assert {near, other} == {nearly.examples[0].annotation_id, int(nearly.examples[0].note.split()[-1])}
    assert nearly.count == 1 and len(nearly.examples[0].boxes) == 2
    (nested,) = named(diagnosis, "nested-boxes")
    assert {place[1] for place in places(nested)} <= {inner, first, same} and nested.severity == "note"


def test_polygons_that_disagree_with_their_box_are_found(clinic):
    clinic.add_image(1, BIG)
    square = [[10, 10, 30, 10, 30, 30, 10, 30]]
    clinic.add_box(1, [10, 10, 20, 20], segmentation=square)
    clinic.add_box(1, [11, 10, 20, 20], segmentation=square)  # a pixel of rounding
    wrong = clinic.add_box(1, [20, 20, 60, 60], segmentation=square)
    (finding,) = named(clinic.diagnose(), "polygon-box")
    assert places(finding) == [(1, wrong)]
    box, outline = finding.examples[0].boxes
    assert box == (20, 20, 79, 79) and outline == (10, 10, 29, 29)


def test_pairs_are_found_like_by_brute_force(clinic, rng):
    groups = rng.integers(0, 9, 60)
    found = {
        tuple(sorted(pair)) for first, second in pairs_in_groups(groups) for pair in zip(first, second, strict=True)
    }
    assert found == {(i, j) for i in range(60) for j in range(i + 1, 60) if groups[i] == groups[j]}


def test_more_boxes_are_counted_than_named(clinic):
    clinic.add_image(1)
    for _ in range(150):
        clinic.add_box(1, [5, 6, 0, 20])
    clinic.add_box(1, [5, 6, 20, 20])
    (finding,) = named(clinic.diagnose(), "training-dropped", "boxes without area")
    assert finding.count == 150 and len(finding.examples) == 100


def test_the_image_folder_is_found_by_the_first_image_of_the_file(clinic):
    clinic.add_image(1)
    clinic.add_box(1, [5, 6, 20, 20])
    (clinic.root / "a").mkdir()
    clinic.write("a/instances_val.json")
    (clinic.root / "images").rename(clinic.root / "val")
    cfg = config_of_file(str(clinic.root / "a" / "instances_val.json"), None)
    assert cfg.DATASETS.TRAIN[0]["IMAGES"] == str(clinic.root / "val")


def test_a_dataset_without_any_usable_box_says_why(clinic):
    clinic.add_image(1)
    flat = clinic.add_box(1, [5, 6, 0, 20])
    diagnosis = clinic.diagnose()
    (error,) = named(diagnosis, "training-error")
    assert "nothing is left to train on" in error.title
    assert places(named(diagnosis, "training-dropped", "boxes without area")[0]) == [(1, flat)]


def test_boxes_written_as_corners_are_pointed_out(clinic, rng):
    clinic.add_image(1, (200, 100))
    for _ in range(30):
        x, y = rng.integers(70, 100), rng.integers(0, 60)
        w, h = rng.integers(61, 100), rng.integers(5, 40)  # x + (x + w) > 200: each sticks out, whatever the seed
        clinic.add_box(1, [int(each) for each in (x, y, x + w, y + h)])
    (warning,) = named(clinic.diagnose(), "training-warning")
    assert "all would fit if their numbers were x1, y1, x2, y2" in warning.title
    for annotation in clinic.annotations:
        x1, y1, x2, y2 = annotation["bbox"]
        annotation["bbox"] = [x1, y1, x2 - x1, y2 - y1]
    assert not named(clinic.diagnose(), "training-warning")


def test_boxes_written_as_shares_of_the_image_are_pointed_out(clinic):
    clinic.add_image(1)
    for x in (0.1, 0.4):
        clinic.add_box(1, [x, 0.2, 0.3, 0.4])
    (dropped,) = named(clinic.diagnose(), "training-dropped", "boxes without area")
    assert "all coordinates are between 0 and 1" in dropped.remedy
