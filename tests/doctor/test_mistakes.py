"""Mistakes of annotations that a model finds."""

import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from helpers.clinic import Clinic

from maskrcnn_benchmark import Predictor
from maskrcnn_benchmark.data.sample import sample_image, sample_objects
from maskrcnn_benchmark.doctor.examine import config_of_file, read_splits
from maskrcnn_benchmark.doctor.mistakes import _assign, mistake_findings
from maskrcnn_benchmark.structures.box_arrays import pairwise_iou


class Oracle:
    """Stands in for a Predictor: returns fixed detections (score, class, box) for each image."""

    def __init__(self, detections, class_names=("dog", "cat", "zebra"), box_offset=1.0):
        self.detections, self.class_names, self.box_offset = detections, class_names, box_offset

    def stream(self, images):
        for _, found in zip(images, self.detections, strict=True):
            yield SimpleNamespace(
                boxes=np.array([box for _, _, box in found], dtype=np.float32).reshape(-1, 4),
                scores=np.array([score for score, _, _ in found], dtype=np.float32),
                labels=np.array([self.class_names.index(name) + 1 for _, name, _ in found], dtype=np.int64),
                box_offset=self.box_offset,
            )


def findings(clinic, predictor) -> dict:
    (split,) = read_splits(config_of_file(clinic.write()["ann_file"], None), False)
    return {finding.check: finding for finding in mistake_findings(split, predictor)}


def corners(x, y, w, h):
    return x, y, x + w - 1, y + h - 1


def test_contradictions_with_the_highest_loss_come_first_and_agreement_is_silent(clinic):
    for number in (1, 2, 3):
        clinic.add_image(number, (100, 80))
        clinic.add_box(number, [10, 10, 30, 30], 1)  # cat
    detections = [
        [(0.7, "dog", corners(10, 10, 30, 30)), (0.2, "cat", corners(10, 10, 30, 30))],
        [(0.9, "dog", corners(11, 10, 30, 30)), (0.1, "cat", corners(10, 10, 30, 30))],
        [(0.9, "cat", corners(11, 10, 30, 30)), (0.8, "dog", corners(10, 10, 30, 30))],
    ]
    found = findings(clinic, Oracle(detections))
    assert set(found) == {"label-mistake"}
    assert [(each.image_id, each.annotation_id) for each in found["label-mistake"].examples] == [(2, 2), (1, 1)]
    example = found["label-mistake"].examples[0]
    assert example.note == "annotated cat, predicted dog 0.90, loss 4.6"
    assert example.boxes == ((10, 10, 39, 39), (11, 10, 40, 39))


def test_a_prediction_of_a_box_of_its_class_does_not_contradict_another_one_there(clinic):
    clinic.add_image(1, (100, 80))
    clinic.add_box(1, [10, 10, 30, 30], 1)
    clinic.add_box(1, [12, 10, 30, 30], 2)
    assert set(findings(clinic, Oracle([[(0.9, "dog", corners(11, 10, 30, 30))]]))) == {"high-loss-box"}


def test_a_box_beside_its_object_is_misplaced_and_shown_with_the_prediction(clinic):
    clinic.add_image(1, (200, 100))
    shifted = clinic.add_box(1, [10, 10, 40, 40], 1)
    clinic.add_box(1, [100, 10, 40, 40], 1)
    detections = [(0.9, "cat", corners(30, 25, 40, 40)), (0.8, "cat", corners(102, 10, 40, 40))]
    (finding,) = findings(clinic, Oracle([detections])).values()
    assert finding.check == "misplaced-box" and [each.annotation_id for each in finding.examples] == [shifted]
    assert finding.examples[0].boxes == ((10, 10, 49, 49), (30, 25, 69, 64))
    assert finding.examples[0].note == "annotated cat, predicted 0.90, IoU 0.19, loss 4.1"


def test_an_object_without_a_box_that_overlaps_a_confirmed_one_is_missing(clinic):
    clinic.add_image(1, (200, 100))
    clinic.add_box(1, [10, 10, 40, 40], 1)
    detections = [(0.9, "cat", corners(10, 10, 40, 40)), (0.8, "cat", corners(28, 10, 40, 40))]
    (finding,) = findings(clinic, Oracle([detections])).values()
    assert finding.check == "missing-box" and finding.examples[0].boxes == ((28, 10, 67, 49),)


def test_boxes_that_are_hardly_found_are_ordered_by_loss(clinic):
    clinic.add_image(1, (200, 100))
    boxes = [[x, 10, 40, 40] for x in (0, 50, 100, 150)]
    for box in boxes:
        clinic.add_box(1, box, 1)
    detections = [(score, "cat", corners(*box)) for score, box in zip((0.9, 0.1, 0.15, 0.5), boxes, strict=True)]
    (finding,) = findings(clinic, Oracle([detections])).values()
    assert finding.check == "high-loss-box" and finding.severity == "note"
    assert [(each.annotation_id, each.note) for each in finding.examples] == [
        (2, "annotated cat, loss 2.3"),
        (3, "annotated cat, loss 1.9"),
    ]


def test_predictions_are_assigned_one_to_one_the_highest_first(rng_seed):
    rng = np.random.default_rng(rng_seed)
    values = rng.random((5, 7)) * (rng.random((5, 7)) < 0.5)
    rows, columns = _assign(values)
    assert len(set(rows)) == len(rows) and len(set(columns)) == len(columns)
    chosen = values[rows, columns]
    assert (np.diff(chosen) <= 0).all() and (chosen > 0).all()
    free = np.delete(np.delete(values, rows, axis=0), columns, axis=1)
    assert not free.any()


def test_objects_without_a_box_and_boxes_without_an_object(clinic):
    clinic.add_image(1, (100, 80))
    clinic.add_box(1, [10, 10, 20, 20], 1)
    large = clinic.add_box(1, [40, 10, 30, 30], 2)
    clinic.add_box(1, [0, 50, 100, 30], 1, iscrowd=1)
    detections = [
        (0.8, "cat", corners(80, 10, 15, 15)),
        (0.5, "cat", corners(80, 30, 15, 15)),  # not sure
        (0.9, "cat", corners(30, 55, 15, 15)),  # in the crowd
        (0.9, "zebra", corners(2, 30, 15, 15)),  # a class that the dataset lacks
    ]
    found = findings(clinic, Oracle([detections]))
    assert [each.note for each in found["missing-box"].examples] == ["predicted cat 0.80, loss 1.6"]
    assert found["missing-box"].examples[0].boxes == ((80, 10, 94, 24),)
    assert [each.annotation_id for each in found["unfound-box"].examples] == [large, 1]


def test_classes_without_a_common_name_are_refused(clinic):
    clinic.add_image(1)
    clinic.add_box(1, [5, 6, 20, 20])
    with pytest.raises(ValueError, match="none of the classes.*zebra.*cat, dog"):
        findings(clinic, Oracle([[]], ("zebra",)))


def test_a_trained_model_finds_a_wrong_class_and_a_missing_box(tmp_path):
    predictor = Predictor.from_zoo("digits_fcos", score_threshold=None, device="cpu")
    clinic = Clinic(tmp_path, categories=predictor.class_names)
    objects = sample_objects()
    clinic.add_image(1, (480, 480))
    shutil.copy(sample_image(), clinic.root / "images" / "1.jpg")
    labels = [list(predictor.class_names).index(name) + 1 for name, _ in objects]
    wrong = labels[0] % len(predictor.class_names) + 1
    for number, ((_, box), label) in enumerate(zip(objects[:-1], labels, strict=False)):
        clinic.add_box(1, list(box), label if number else wrong)
    found = findings(clinic, predictor)
    (mistake,) = found["label-mistake"].examples
    assert mistake.annotation_id == 1 and f"predicted {objects[0][0]}" in mistake.note
    boxes = [each.boxes[0] for each in found["missing-box"].examples]
    missing = np.array([corners(*objects[-1][1])], dtype=float)
    assert pairwise_iou(np.array(boxes, dtype=float), missing, 1).max() > 0.7
