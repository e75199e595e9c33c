"""Comparing the samples of two datasets."""

from __future__ import annotations

import numpy as np
import torch


def assert_same_samples(found, wanted) -> None:
    """Compare ids, classes, reports, sizes, images and targets, without tolerance."""
    assert found.ids == list(wanted.ids) and len(found) == len(wanted)
    assert found.class_names == wanted.class_names and found.categories == wanted.categories
    assert getattr(found, "semantic_names", None) == getattr(wanted, "semantic_names", None)
    assert str(found.report) == str(wanted.report) and found.keypoint_flip_inds == wanted.keypoint_flip_inds
    for index in range(len(wanted)):
        assert found.get_img_info(index) == wanted.get_img_info(index)
        assert found.annotation_factors(index) == wanted.annotation_factors(index)
        (image, target, _), (image_wanted, target_wanted, _) = found[index], wanted[index]
        np.testing.assert_array_equal(np.asarray(image), np.asarray(image_wanted))
        assert target.size == target_wanted.size and target.fields() == target_wanted.fields()
        torch.testing.assert_close(target.bbox, target_wanted.bbox, rtol=0, atol=0)
        for name in target.fields():
            torch.testing.assert_close(
                _plain(target.get_field(name)), _plain(target_wanted.get_field(name)), rtol=0, atol=0
            )


def _plain(field):
    """The numbers of a field."""
    if isinstance(field, torch.Tensor):
        return field
    if getattr(field, "mode", None) == "poly":
        return [[polygon.tolist() for polygon in instance.polygons] for instance in field.instances.polygons]
    if hasattr(field, "get_mask_tensor"):
        return field.get_mask_tensor()
    return field.labels if hasattr(field, "labels") else field.keypoints
