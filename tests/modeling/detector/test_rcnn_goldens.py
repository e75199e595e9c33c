"""Compare two-stage models with recorded outputs of maskrcnn-benchmark and its VoVNet forks."""

import zlib

import numpy as np
import pytest
import torch
from helpers.golden_models import BOX_PIXELS, GoldenModel, check_detections, check_losses, check_proposals, check_tensor
from helpers.naive_paste import pasted_probability

from maskrcnn_benchmark.modeling.roi_heads.mask_head.inference import Masker
from maskrcnn_benchmark.structures.bounding_box import BoxList

CONFIGS = {
    "faster_V_39": "vovnet/e2e_faster_rcnn_V_39_FPN_2x.yaml",
    "faster_R_50_C4": "e2e_faster_rcnn_R_50_C4_1x.yaml",
    "mask_V_39": "vovnet/e2e_mask_rcnn_V_39_FPN_2x.yaml",
    "scratch_mask_V_39_gn": "vovnet/scratch_mask_rcnn_V_39_FPN_3x_gn.yaml",
    "keypoint_R_50_FPN": "e2e_keypoint_rcnn_R_50_FPN_1x.yaml",
}
# Of 64 samples, those in rows of proposals that may be swapped: scores are close at the end of the list.
SWAPS = 5
# Fraction of a pasted mask's pixels that may differ: those with a probability very near the threshold.
DIFFERENT_PIXELS = 0.001
UNDECIDED = 1e-4


# faster_V_39's recorded maps, proposals, logits and losses are those of mask_V_39, number for number.
GOLDENS = [pytest.param(name, marks=[pytest.mark.slow] if name == "faster_V_39" else []) for name in CONFIGS]


@pytest.fixture(scope="module", params=GOLDENS)
def golden(request):
    return GoldenModel(request.param, CONFIGS[request.param])


@pytest.fixture(scope="module")
def forwards(golden):
    """Return (recorded output, our output) of every recorded forward pass."""
    return [
        (recorded, golden.stages(images))
        for recorded, images in zip(golden.golden["test"], golden.test_batches(), strict=True)
    ]


def test_maps_proposals_and_logits_equal_the_originals(forwards):
    for recorded, ours in forwards:
        logits, codes = ours["rpn.head"]
        for name, maps, expected in [
            ("body", ours["backbone.body"], recorded["backbone_body"]),
            ("backbone", ours["backbone"], recorded["features"]),
            ("RPN logits", logits, recorded["head"]["cls"]),
            ("RPN codes", codes, recorded["head"]["bbox"]),
        ]:
            for level, (tensor, entry) in enumerate(zip(maps, expected, strict=True)):
                check_tensor(tensor, entry, f"{name} of level {level}")
        for proposals, entry in zip(ours["rpn"][0], recorded["proposals"], strict=True):
            check_proposals(proposals, entry)
        class_logits, box_regression = ours["roi_heads.box.predictor"]
        check_tensor(class_logits, recorded["box_predictor"]["class_logits"], "class logits", SWAPS)
        check_tensor(box_regression, recorded["box_predictor"]["box_regression"], "box regression", SWAPS)


def test_detections_equal_the_originals(golden, forwards):
    for recorded, ours in forwards:
        places, first = [], 0
        for found, entry in zip(ours["detections"], recorded["detections"], strict=True):
            assert sorted(found.fields()) == entry["fields"]
            labels = found.get_field("labels")
            assert (labels[1:] >= labels[:-1]).all(), "detections come class by class"
            order = torch.tensor(check_detections(found, entry, golden.arrays)).argsort()
            places.append(first + order)
            first += len(found)
            found = found[order]
            if "mask" in entry["fields"]:
                check_masks(found, entry, golden.arrays)
            if "keypoints" in entry["fields"]:
                check_keypoints(found, entry, golden.arrays)
        for name in ("mask", "keypoint"):
            if f"{name}_logits" in recorded:
                logits = ours[f"roi_heads.{name}.predictor"][torch.cat(places)]
                check_tensor(logits, recorded[f"{name}_logits"], f"{name} logits")


def check_masks(found, recorded, arrays):
    """Check the masks of detections in the order of the recorded ones."""
    masks = found.get_field("mask")
    check_tensor(masks, recorded["mask_prob"], "masks")
    np.testing.assert_allclose(masks[:10].numpy(), arrays[recorded["npz_prefix"] + "mask_prob_first10"], atol=1e-4)
    paste = Masker(threshold=0.5, padding=1)
    # From the original's masks and boxes, every pixel equals the original's.
    prefix = recorded["npz_prefix"]
    their_masks = torch.from_numpy(arrays[prefix + "mask_prob_first10"])
    (theirs,) = paste([their_masks], [BoxList(arrays[prefix + "boxes"][:10], found.size)])
    assert [zlib.crc32(mask.numpy().tobytes()) for mask in theirs[:5]] == recorded["pasted_crc32_first5"]
    assert theirs.flatten(start_dim=1).sum(dim=1).tolist() == recorded["pasted_pixel_counts"][:10]

    (ours,) = paste([masks], [found])
    for i, (mask, pixels, box) in enumerate(zip(masks[:, 0], ours[:, 0], found.bbox, strict=True)):
        count = recorded["pasted_pixel_counts"][i]
        undecided = np.abs(pasted_probability(mask.numpy(), box.tolist(), found.size) - 0.5) <= UNDECIDED
        if i < len(theirs):
            different = (pixels != theirs[i, 0]).numpy()
            assert different.sum() <= DIFFERENT_PIXELS * count and not (different & ~undecided).any(), i
        assert abs(int(pixels.sum()) - count) <= min(DIFFERENT_PIXELS * count, undecided.sum()), i


def check_keypoints(found, recorded, arrays):
    """Check the keypoints of detections in the order of the recorded ones."""
    keypoints = found.get_field("keypoints")
    expected = arrays[recorded["npz_prefix"] + "keypoints"]
    logits = arrays[recorded["npz_prefix"] + "keypoint_logits"]
    np.testing.assert_allclose(keypoints.get_field("logits").numpy(), logits, rtol=1e-4, atol=1e-4)
    near = np.abs(keypoints.keypoints.numpy() - expected).max(axis=2) <= BOX_PIXELS
    # Two positions of a heatmap can be equal up to rounding.
    assert near.mean() >= 0.998, f"{(~near).sum()} of {near.size} keypoints lie elsewhere"


def test_losses_and_gradients_equal_the_originals(golden):
    recorded = golden.golden["train"]
    drawn = []
    hooks = [
        module.register_forward_hook(lambda module, inputs, output, name=name: drawn.append((name, len(output))))
        for name, module in golden.model.named_modules()
        if name.endswith(".feature_extractor")
    ]
    losses = golden.losses()
    for hook in hooks:
        hook.remove()
    for name, count in drawn:
        assert count == recorded[f"n_rois_{name.split('.')[1]}_head"]
    check_losses(golden.model, losses, recorded)
    assert torch.isclose(sum(losses.values()), torch.tensor(recorded["total"]), rtol=1e-3)
