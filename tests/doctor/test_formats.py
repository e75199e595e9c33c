"""The same faults are found in every format, and --fix writes a copy without them."""

import pytest
from helpers.clinic import named
from helpers.sick_datasets import FORMATS, write

from maskrcnn_benchmark.config import cfg as default_cfg
from maskrcnn_benchmark.doctor.duplicates import duplicate_findings
from maskrcnn_benchmark.doctor.examine import examine, read_splits
from maskrcnn_benchmark.doctor.fix import write_clean

# Check and a part of the title, severity, and the images (see sick_datasets) that have the fault.
FAULTS = [
    ("images-unreadable", "missing image", "error", "missing"),
    ("images-unreadable", "cannot be decoded", "error", "broken"),
    ("training-dropped", "boxes without area", "warning", "flat"),
    ("training-dropped", "boxes outside the image", "warning", "outside"),
    ("training-repaired", "boxes clipped to the image", "warning", "over"),
    ("training-repaired", "truncated images", "warning", "truncated"),
    ("training-repaired", "images rotated as EXIF says", "note", "turned"),
    ("training-repaired", "images of mode L ", "note", "grey"),
    ("training-noted", "images of more than 8 bits", "note", "deep"),
    ("class-once", "classes with a single box", "warning", "once"),
    ("near-duplicates", "test data that are nearly the same as one of the training", "warning", "copy"),
]
# Titles about the annotation that stands twice: COCO and LabelMe keep both, as their ids differ.
REPEATED = ("repeated lines", "repeated rows", "repeated objects", "annotations with image, class and box of another")


@pytest.fixture(params=FORMATS)
def config(request, tmp_path, rng_seed):
    cfg = default_cfg.clone()
    train, test = write(tmp_path / "data", request.param, rng_seed)
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = (train,), (test,)
    return cfg


def diagnose(cfg):
    splits = read_splits(cfg, False)
    diagnosis = examine(cfg, splits, "all.yaml", False)
    diagnosis.add(duplicate_findings(splits))
    return diagnosis, splits


def image_name(example, splits) -> str:
    """Return the name that sick_datasets gives to the image of an example."""
    (split,) = (each for each in splits if each.name == example.split)
    place = str(example.image_id)
    if example.image is not None:
        place = split.dataset.get_img_info(example.image)["file_name"]
    elif place.isdigit():
        place = example.note
    return place.rpartition("/")[2].partition(":")[0].partition(".")[0]


def test_every_fault_is_found_whatever_the_format_and_the_clean_copy_has_none(config, tmp_path):
    diagnosis, splits = diagnose(config)
    for check, part, severity, image in FAULTS:
        (finding,) = named(diagnosis, check, part)
        assert finding.severity == severity and finding.count == 1, finding
        assert [image_name(each, splits) for each in finding.examples] == [image], finding
        assert (finding.examples[0].image is None) == (severity == "error")
    (repeated,) = (each for each in diagnosis.findings if each.title.startswith(REPEATED))
    assert repeated.severity == "warning" and repeated.count == 1
    if repeated.title != "repeated rows":  # a row is found by its line in the csv
        assert image_name(repeated.examples[0], splits) == "repeated"
    notes = sum(severity == "note" for _, _, severity, _ in FAULTS)
    others = [each for each in diagnosis.findings if each.severity != "note"]
    assert len(others) == len(FAULTS) + 1 - notes, [each.title for each in others]
    assert [each.images for each in diagnosis.splits] == [13, 2] and diagnosis.status() == 1

    copies, changes = write_clean(config, splits, str(tmp_path / "clean"))
    assert {"missing images: left out", "images that cannot be decoded: left out"} <= {each.what for each in changes}
    config.DATASETS.TRAIN, config.DATASETS.TEST = ([each.block] for each in copies)
    config.DATASETS.EXIF_ROTATION = "upright"
    after, clean_splits = diagnose(config)
    of_pixels = ("truncated images", "classes with a single", "images of the test data")
    assert all(each.severity == "note" or each.title.startswith(of_pixels) for each in after.findings), after.to_text()
    assert after.status() == 0
    boxes, clean = (sum(len(each.table.boxes) for each in some) for some in (splits, clean_splits))
    assert clean == boxes - (repeated.check == "training-noted")
