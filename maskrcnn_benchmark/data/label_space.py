"""Check, before the first step, that model and datasets agree on labels and that annotations suffice for the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from maskrcnn_benchmark.config.paths_catalog import DatasetCatalog
from maskrcnn_benchmark.config.stages import has_box_head, has_roi_heads
from maskrcnn_benchmark.structures.keypoint import keypoint_sigmas_problem

# Maximum number of classes listed in a message.
SPELLED_OUT = 20

# Meta architectures trained on semantic maps -> dataset formats with semantic maps.
WITH_SEMANTIC_HEAD = {
    "PanopticFPN": "coco_panoptic",
    "SemanticSegmentor": "semantic, coco_semantic, cityscapes_semantic or coco_panoptic",
}


def describe_classes(class_names: Sequence[str]) -> str:
    """Return '(a, b, c)', shortened if there are many."""
    names = [str(name) for name in class_names]
    shown = names if len(names) <= SPELLED_OUT else [*names[: SPELLED_OUT - 1], "...", names[-1]]
    return f"({', '.join(shown)})"


def num_classes_keys(cfg) -> list[str]:
    """Return the NUM_CLASSES keys that the model uses, relative to cfg.MODEL."""
    if cfg.MODEL.META_ARCHITECTURE == "SemanticSegmentor":
        return []  # no boxes
    if cfg.MODEL.FCOS_ON:
        return ["FCOS.NUM_CLASSES"] + ["ROI_BOX_HEAD.NUM_CLASSES"] * has_box_head(cfg.MODEL)
    if cfg.MODEL.RETINANET_ON:
        return ["RETINANET.NUM_CLASSES"]
    if cfg.MODEL.RPN_ONLY:
        return []  # proposals have no class
    return ["ROI_BOX_HEAD.NUM_CLASSES"]


def label_names(dataset) -> dict[str, list[str]]:
    """Return a dataset's names by kind: "class_names", and "semantic_names" if it has semantic maps."""
    names = {kind: getattr(dataset, kind, None) for kind in ("class_names", "semantic_names")}
    return {kind: list(each) for kind, each in names.items() if each}


def label_ids(dataset) -> dict[str, list]:
    """Return the label ids of the annotation files by kind: "category_ids", one per class name, and "semantic_ids".

    Concatenated datasets with different ids have no "category_ids".
    """
    first = dataset.parts[0] if hasattr(dataset, "parts") else dataset
    names = label_names(dataset)
    ids = {}
    categories = getattr(dataset, "categories", None)
    if "class_names" in names and categories:
        # Pascal VOC's categories start with the background
        ids["category_ids"] = list(categories)[-len(names["class_names"]) :]
    if "semantic_names" in names:
        stuff = getattr(first, "stuff_category_ids", None)
        numbers = list(categories or ()) if stuff is None else [0, *stuff.values()]
        if len(numbers) == len(names["semantic_names"]):
            ids["semantic_ids"] = numbers
    return ids


def resolve_num_classes(
    cfg, class_names: Sequence[str], source: str | None = None, semantic_names: Sequence[str] | None = None
) -> None:
    """Set NUM_CLASSES = -1 from the data, and check any other value against the data.

    Args:
        cfg: not frozen; modified where a NUM_CLASSES that the model uses is -1.
        class_names: foreground classes of the data.
        source: name of the data in errors; default: DATASETS.TRAIN and its entries.
        semantic_names: classes of its semantic maps, or None if it has none.

    Raises:
        ValueError: NUM_CLASSES of a box head is not the number of classes plus one for the background, NUM_CLASSES of
            the semantic head is not the number of semantic classes, or the data has no semantic maps for that head.
    """
    source = source or _training_sets(cfg)
    for key in num_classes_keys(cfg):
        _resolve(cfg, key, class_names, len(class_names) + 1, "classes", "classes + background", source)
    if cfg.MODEL.META_ARCHITECTURE in WITH_SEMANTIC_HEAD:
        if not semantic_names:
            raise ValueError(
                f"{source} has no semantic maps, but a {cfg.MODEL.META_ARCHITECTURE} requires them. Give blocks of "
                f"FORMAT: {WITH_SEMANTIC_HEAD[cfg.MODEL.META_ARCHITECTURE]}."
            )
        key, number = "SEM_SEG_HEAD.NUM_CLASSES", len(semantic_names)
        _resolve(cfg, key, semantic_names, number, "semantic classes", "no background is added", source)


def _resolve(cfg, key: str, names: Sequence[str], wanted: int, kind: str, counted: str, source: str) -> None:
    node_name, leaf = key.split(".")
    node = cfg.MODEL[node_name]
    if node[leaf] == -1:
        node[leaf] = wanted
    elif node[leaf] != wanted:
        raise ValueError(
            f"{source} has {len(names)} {kind} {describe_classes(names)} but MODEL.{key} is {node[leaf]}. Set it to "
            f"{wanted} ({counted}), or to -1 to take it from the data."
        )


def check_label_names(
    expected: Mapping[str, Sequence[str]], datasets: Mapping[str, Mapping[str, Sequence[str]]], **messages
) -> None:
    """Call `check_label_spaces` for every kind of labels that both sides have.

    Args:
        expected: names by kind, see `label_names`.
        datasets: test set -> its names by kind.
        **messages: train_source and other, see `check_label_spaces`.

    Raises:
        ValueError: see `check_label_spaces`.
    """
    for kind, names in expected.items():
        given = {name: kinds[kind] for name, kinds in datasets.items() if kind in kinds}
        check_label_spaces(names, given, **messages)


def check_annotations(cfg, dataset) -> None:
    """Check that the training data has the masks and keypoints that the model's heads require.

    Args:
        cfg: see MODEL and INPUT.
        dataset: its `parts` are datasets with name, has_masks and num_keypoints.

    Raises:
        ValueError: a part has no masks or keypoints, its number of keypoints differs from the model's, or images are
            flipped and it is unknown which keypoints swap.
    """
    model = cfg.MODEL
    if not has_roi_heads(model) or not (model.MASK_ON or model.KEYPOINT_ON):
        return
    for part in dataset.parts:
        for key, what, there in (
            ("MASK_ON", "masks (segmentations)", part.has_masks),
            ("KEYPOINT_ON", "keypoints", part.num_keypoints > 0),
        ):
            if model[key] and not there:
                raise ValueError(
                    f"MODEL.{key} is True, but the annotations of the training set {part.name} have no {what}. "
                    f"Set it to False, or train on data with them."
                )
        if model.KEYPOINT_ON:
            _check_keypoints(cfg, f"the training set {part.name}", part)


def _check_keypoints(cfg, source: str, part) -> None:
    """Check the number of keypoints, and that the configured flips of training images are possible with them."""
    number, names = cfg.MODEL.ROI_KEYPOINT_HEAD.NUM_CLASSES, getattr(part, "keypoint_names", None)
    if part.num_keypoints != number:
        raise ValueError(
            f"{source} has {part.num_keypoints} keypoints per object, but MODEL.ROI_KEYPOINT_HEAD.NUM_CLASSES is "
            f"{number}. Set it to {part.num_keypoints}."
        )
    if cfg.INPUT.HORIZONTAL_FLIP_PROB_TRAIN > 0 and not getattr(part, "is_without_sides", False):
        _require_flip_inds(part, source, "INPUT.HORIZONTAL_FLIP_PROB_TRAIN to 0", names)
    if cfg.INPUT.VERTICAL_FLIP_PROB_TRAIN > 0:
        raise ValueError(
            f"INPUT.VERTICAL_FLIP_PROB_TRAIN is {cfg.INPUT.VERTICAL_FLIP_PROB_TRAIN:g}, but keypoints only support "
            "horizontal flips. Set it to 0."
        )


def _require_flip_inds(part, source: str, otherwise: str, names) -> None:
    if not hasattr(part, "keypoint_flip_inds") or part.keypoint_flip_inds is not None:
        return
    called = f"called {', '.join(names)}" if names else "without names"
    raise ValueError(
        f"{source} has {part.num_keypoints} keypoints per object, {called}, and it is unknown which of them swap in a "
        f"mirrored image. Set INPUT.KEYPOINT_FLIP_PAIRS to the pairs, as in [[{names[0] if names else 0}, "
        f"{names[-1] if names else 1}]], or to [] if none swap; or set {otherwise}."
    )


def check_evaluation(cfg, name: str, dataset) -> None:
    """Check, before inference, that the model's keypoints can be evaluated on a test set.

    Args:
        cfg: see MODEL, DATASETS and TEST.
        name: name of the test set in DATASETS.TEST.
        dataset: a dataset; those with keypoints have num_keypoints, keypoint_flip_inds and get_groundtruth.

    Raises:
        ValueError: the dataset's keypoints cannot be evaluated, or cannot be flipped by TEST.BBOX_AUG.
    """
    model, aug = cfg.MODEL, cfg.TEST.BBOX_AUG
    if not model.KEYPOINT_ON or not has_roi_heads(model):
        return
    if not hasattr(dataset, "num_keypoints") or not getattr(dataset, "evaluates_keypoints", True):
        return  # Pascal VOC, or a custom dataset, which is not checked
    source, number = f"the test set {name}", model.ROI_KEYPOINT_HEAD.NUM_CLASSES
    if dataset.num_keypoints == 0:
        if dataset.report.totals["boxes"] == 0:
            return  # the ground truth of this test set is not public
        raise ValueError(
            f"MODEL.KEYPOINT_ON is True, but the annotations of {source} have no keypoints to evaluate. Test on data "
            "with keypoints."
        )
    if dataset.num_keypoints != number:
        raise ValueError(
            f"{source} has {dataset.num_keypoints} keypoints per object, but MODEL.ROI_KEYPOINT_HEAD.NUM_CLASSES is "
            f"{number}. Training and test data require the same keypoints."
        )
    problem = keypoint_sigmas_problem(cfg.DATASETS.KEYPOINT_SIGMAS, number)
    if problem:
        raise ValueError(f"{source} cannot be evaluated: {problem} --skip-test trains without evaluation.")
    if aug.ENABLED and (aug.H_FLIP or aug.SCALE_H_FLIP):
        names = getattr(dataset, "keypoint_names", None)
        _require_flip_inds(dataset, source, "TEST.BBOX_AUG.H_FLIP and SCALE_H_FLIP to False", names)


def check_label_spaces(
    train_names: Sequence[str],
    test_names: Mapping[str, Sequence[str]],
    train_source: str = "the training data",
    other: str = "test set",
) -> None:
    """Check that test sets have the same class names as the training data, in the same order.

    Args:
        train_names: class names of the model's labels 1..K.
        test_names: class names by test set.
        train_source: name of the training data in errors.
        other: name of a test set in errors.

    Raises:
        ValueError: a test set differs; both lists are in the message.
    """
    expected = list(train_names)
    for test_set, names in test_names.items():
        given = list(names)
        if given == expected:
            continue
        lists = f"{train_source} {describe_classes(expected)}, {other} '{test_set}' {describe_classes(given)}"
        if sorted(given) == sorted(expected):
            at = next(k for k, pair in enumerate(zip(expected, given, strict=True), start=1) if pair[0] != pair[1])
            raise ValueError(
                f"the classes are in a different order: label {at} is '{expected[at - 1]}' in training and "
                f"'{given[at - 1]}' in the {other}: {lists}. List 'categories' in the same order in both annotation "
                f"files."
            )
        known, found = set(expected), set(given)
        missing = describe_classes([name for name in expected if name not in found])
        new = describe_classes([name for name in given if name not in known])
        raise ValueError(
            f"the classes differ: {lists}. Only in the former: {missing}; only in the latter: {new}. Both annotation "
            f"files must list the same categories, including those without a box."
        )


def _training_sets(cfg) -> str:
    return f"DATASETS.TRAIN {', '.join(repr(DatasetCatalog.name(entry)) for entry in cfg.DATASETS.TRAIN)}"
