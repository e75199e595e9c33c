"""Findings about how often classes occur."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from maskrcnn_benchmark.doctor.findings import Example, Finding
from maskrcnn_benchmark.doctor.splits import Split

# A class is reported if its shares of the training and test boxes differ by FACTOR or more, and if the larger share
# would be at least MANY boxes of the smaller of the two sets.
FACTOR = 3.0
MANY = 10


def class_findings(splits: Sequence[Split]) -> Iterator[Finding]:
    """Yield classes that occur once or never, and those whose share differs between training and test data.

    Args:
        splits: splits without a table or classes are skipped. Splits whose class names differ from those of the first
            one are not compared.
    """
    with_boxes = [split for split in splits if split.table is not None and split.class_names]
    if not with_boxes:
        return
    for split in with_boxes:
        if split.role == "test" and split.table.image_ids and not len(split.table.boxes):
            title = "no image has a box: every figure of the evaluation will be -1 (not computed)"
            remedy = "Annotate the test data, or take another part of the data for it."
            yield Finding("test-without-boxes", "warning", title, (split.name,), remedy=remedy)
    names = with_boxes[0].class_names
    same = [split for split in with_boxes if split.class_names == names]
    counts = {role: _counts(same, role) for role in ("train", "test")}
    train, test = counts["train"], counts["test"]
    if train is not None:
        role = tuple(split.name for split in same if split.role == "train")
        absent = np.flatnonzero(train == 0)
        found = [Example(role[0], note=names[k]) for k in absent]
        if test is not None:
            tested = np.flatnonzero((train == 0) & (test > 0))
            where = tuple(split.name for split in same)
            examples = [Example(role[0], note=f"{names[k]}: {test[k]:,} in the test data") for k in tested]
            remedy = "The model cannot learn them. Move images with them to the training data, or remove the classes."
            if examples:
                title = "classes with boxes in the test data and none in the training data"
                yield Finding("class-not-trained", "warning", title, where, len(examples), examples, remedy)
            found = [Example(role[0], note=names[k]) for k in absent if not test[k]]
        if found:
            remedy = "Remove the class from the categories of all files, or add images with it."
            yield Finding("class-unused", "warning", "classes without a box", role, len(found), found, remedy)
        yield from _rare(same, names, train, role)
    if train is not None and test is not None:
        yield from _shifted(names, train, test, tuple(split.name for split in same))


def _counts(splits: Sequence[Split], role: str) -> np.ndarray | None:
    found = [split.class_counts() for split in splits if split.role == role]
    return sum(found) if found else None


def _rare(splits: Sequence[Split], names: list[str], train: np.ndarray, role: tuple[str, ...]) -> Iterator[Finding]:
    once = np.flatnonzero(train == 1)
    if not len(once):
        return
    examples = []
    for split in splits:
        if split.role == "train":
            rows = np.flatnonzero(np.isin(split.table.labels, once + 1))
            examples += split.examples(rows, lambda row, split=split: names[split.table.labels[row] - 1])
    remedy = "A detector needs tens of examples. Is the name misspelled, or does it belong to another class?"
    yield Finding("class-once", "warning", "classes with a single box", role, len(once), examples, remedy)


def _shifted(names: list[str], train: np.ndarray, test: np.ndarray, where: tuple[str, ...]) -> Iterator[Finding]:
    shares = [counts / max(counts.sum(), 1) for counts in (train, test)]
    least = min(train.sum(), test.sum())
    more, less = np.maximum(*shares), np.minimum(*shares)
    differs = (more >= FACTOR * less) & (more * least >= MANY) & (less > 0)
    chosen = sorted(np.flatnonzero(differs), key=lambda k: -more[k] / less[k])
    examples = [
        Example(where[0], note=f"{names[k]}: {shares[0][k]:.1%} in training, {shares[1][k]:.1%} in the test data")
        for k in chosen
    ]
    if examples:
        remedy = "Split the images at random, by scene, so that the test measures what was trained."
        title = f"classes whose share differs by a factor of {FACTOR:g} or more between training and test data"
        yield Finding("class-shift", "warning", title, where, len(examples), examples, remedy)
