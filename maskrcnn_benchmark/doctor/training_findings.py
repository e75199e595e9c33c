"""Findings of the checks that training itself makes: of each dataset's report, and of labels and annotations."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from maskrcnn_benchmark.data.build import refuse_empty_test_set
from maskrcnn_benchmark.data.datasets import ConcatDataset
from maskrcnn_benchmark.data.label_space import (
    check_annotations,
    check_evaluation,
    check_label_names,
    label_names,
    resolve_num_classes,
)
from maskrcnn_benchmark.doctor.findings import MOST, Example, Finding
from maskrcnn_benchmark.doctor.splits import Split, Trouble

SEVERITY_OF_ACTION = {"dropped": "warning", "repaired": "warning", "noted": "note"}
# Starts of findings that are ordinary in good data, although entries are left out or changed.
ORDINARY = (
    "crowd regions",
    "images of mode",
    "images without usable annotations",
    "images rotated as EXIF says",
    "image names found in another",
    "image names found without the folders",  # a warning says where that is suspicious
    "unused categories that name the project",  # Roboflow, labelme2coco
)
# Starts of findings that cost accuracy, although nothing is changed.
HARMFUL = ("annotations with image, class and box of another", "annotation ids used for different")
# Words by which the readers of the formats refer to annotations.
OF_ANNOTATIONS = ("annotation ids", "objects", "shapes", "rows", "segments", "lines")
REMEDY_OF_ACTION = {
    "dropped": "Training leaves them out. Correct or delete them.",
    "repaired": "Training uses them in changed form. Correct them.",
    "noted": "",
}
REMEDIES = {
    "annotations with image, class and box of another": "Delete all but one: each counts as an object of its own.",
    "truncated images": "Copy these files again from their source.",
    "boxes outside the image": "Check that images and annotations belong together, and whether images were resized.",
    "boxes clipped to the image": "Check that images were not resized or rotated after they were annotated.",
    "annotations of unknown images": "Add the images to 'images', or delete the annotations.",
}


def findings_of_training(split: Split) -> Iterator[Finding]:
    """Yield the errors that would stop training, and the dataset's report."""
    for trouble in split.troubles:
        yield _of_trouble(split, trouble)
    report = getattr(split.source, "report", None)
    if report is None:
        return
    for message in report.warnings:
        yield Finding("training-warning", "warning", message, (split.name,))
    for action, severity in SEVERITY_OF_ACTION.items():
        for found in report.findings(action):
            if found.what.startswith(ORDINARY):
                severity_here = "note"
            else:
                severity_here = "warning" if found.what.startswith(HARMFUL) else severity
            remedy = next((text for start, text in REMEDIES.items() if found.what.startswith(start)), "")
            if severity_here == "warning":
                remedy = remedy or REMEDY_OF_ACTION[action]
            yield Finding(
                f"training-{action}",
                severity_here,
                found.what,
                (split.name,),
                found.count,
                _examples(split, found),
                found.hint or remedy,
            )


def _of_trouble(split: Split, trouble: Trouble) -> Finding:
    examples = [Example(split.name, image_id, note=text) for image_id, text in trouble.places[:MOST]]
    if not examples:
        return Finding("training-error", "error", f"{trouble.what}: {trouble.message}", (split.name,))
    remedy = "Restore these files, or take the images out of the annotations: training does not start with them."
    return Finding("images-unreadable", "error", trouble.what, (split.name,), len(trouble.places), examples, remedy)


def _examples(split: Split, found) -> list[Example]:
    if found.whose in OF_ANNOTATIONS:
        return split.examples_by_id(found.examples)
    if found.whose == "image ids":
        return [Example(split.name, each, image=split.image_places.get(each)) for each in found.examples[:MOST]]
    return [Example(split.name, note=str(each)) for each in found.examples[:MOST]]


def findings_of_labels(cfg, splits: Sequence[Split]) -> Iterator[Finding]:
    """Yield the errors that tools/train_net.py and tools/test_net.py raise about labels, masks and keypoints.

    Args:
        cfg: not frozen; NUM_CLASSES of -1 are set from the data.
        splits: those of DATASETS.TRAIN and TEST.
    """
    read = [split for split in splits if split.dataset is not None]
    train, test = ([split for split in read if split.role == role] for role in ("train", "test"))
    calls = []
    if train:
        first = train[0]
        names = label_names(first.dataset)
        tests = {split.name: label_names(split.dataset) for split in test}
        class_names, semantic_names = names.get("class_names", []), names.get("semantic_names")
        calls.append((lambda: resolve_num_classes(cfg, class_names, semantic_names=semantic_names), (first,)))
        calls.append((lambda: ConcatDataset([split.dataset for split in train]), train))
        for name, kinds in tests.items():
            pair = [split for split in (*train[:1], *test) if split is first or split.name == name]
            calls.append((lambda name=name, kinds=kinds: check_label_names(names, {name: kinds}), pair))
        for split in train:
            if hasattr(split.dataset, "parts"):
                calls.append((lambda split=split: check_annotations(cfg, split.dataset), (split,)))
    for split in test:
        if not split.troubles:
            calls.append((lambda split=split: refuse_empty_test_set(split.dataset), (split,)))
        calls.append((lambda split=split: check_evaluation(cfg, split.name, split.dataset), (split,)))
    for call, about in calls:
        try:
            call()
        except ValueError as error:
            yield Finding("labels", "error", str(error), tuple(split.name for split in about))
