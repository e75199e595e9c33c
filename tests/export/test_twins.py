"""The exportable form of every model computes what the model does, before it leaves PyTorch."""

import pytest
import torch
from helpers.export_cases import case
from helpers.tiny_models import MODELS, tiny_cfg, tiny_model

from maskrcnn_benchmark.export.errors import NotExportable
from maskrcnn_benchmark.export.model import example_inputs, make_exportable
from maskrcnn_benchmark.structures.image_list import ImageList

SIZES = ((128, 160), (100, 131))
CONVENTIONS = ("maskrcnn_benchmark", "detectron2", "mmdetection")
CASES = [(name, convention) for name in MODELS for convention in CONVENTIONS if "centermask" not in name]
CASES += [(name, convention) for name in MODELS if "centermask" in name for convention in ("centermask", "centermask2")]


def run_both(cfg, model, exportable):
    """Return what the exportable form gives, by name, and what the model gives."""
    pixels = torch.randint(0, 256, (2, 16, 20, 3)).repeat_interleave(8, 1).repeat_interleave(8, 2)
    images, sizes = pixels.to(torch.uint8), torch.tensor(SIZES)
    originals = sizes * 2 + 3
    given = (images, sizes, originals) if "original_sizes" in exportable.input_names else (images, sizes)
    with torch.no_grad():
        outputs = dict(zip(exportable.names, exportable(*given), strict=True))
        batch = ImageList(exportable.network_input(images, sizes), [torch.Size(size) for size in SIZES])
        kwargs = {}
        if getattr(model, "takes_output_sizes", False):
            kwargs["output_sizes"] = [(width, height) for height, width in originals.tolist()]
        return outputs, model(batch, **kwargs)


def in_order(boxlist, boxes, labels):
    """Return a BoxList best first; scores that differ by rounding alone are in the order of `boxes` and `labels`."""
    scores = boxlist.get_field("scores" if boxlist.has_field("scores") else "objectness")
    boxlist = boxlist[scores.argsort(descending=True, stable=True)]
    scores = scores.sort(descending=True, stable=True).values
    differs = (boxes[:, None] - boxlist.bbox).abs().amax(dim=2)
    differs[(scores[:, None] - scores).abs() > 1e-5] = torch.inf
    if boxlist.has_field("labels"):
        differs[labels[:, None] != boxlist.get_field("labels")] = torch.inf
    order = []
    for row in differs:
        row[order] = torch.inf
        order.append(int(row.argmin()))
    return boxlist[torch.tensor(order)]


OPTIONS = {
    "score threshold 0, one detection": ("fcos", "MODEL.FCOS.INFERENCE_TH", 0.0, "TEST.DETECTIONS_PER_IMG", 1),
    "more places than candidates": ("fcos", "TEST.DETECTIONS_PER_IMG", 9999),
    "one class": ("retinanet, detectron2", "MODEL.RETINANET.NUM_CLASSES", 2),
    "365 classes": ("fcos", "MODEL.FCOS.NUM_CLASSES", 366),
    "NMS off": ("faster", "MODEL.ROI_HEADS.NMS", 0.0, "MODEL.RPN.NMS_THRESH", 0.0, "MODEL.RPN.POST_NMS_TOP_N_TEST", 7),
    "NMS of 1": ("faster", "MODEL.ROI_HEADS.NMS", 1.0, "MODEL.RPN.NMS_THRESH", 1.0),
    "class-agnostic": ("faster, class-agnostic",),
    "FCOS in RPN's place": ("faster on fcos",),
    "FCOS in RPN's place, mask scoring": ("mask scoring on fcos",),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_outputs_equal_the_models_with_options(name, rng_seed):
    cfg, model, _ = case(*OPTIONS[name])
    assert_outputs_equal(cfg, model)


@pytest.mark.parametrize(("name", "option"), [("mask", "MODEL.ROI_HEADS.SCORE_THRESH"), ("centermask2", "")])
def test_images_without_detections_have_zeros_alone(name, option):
    cfg, model, _ = case("mask scoring" if option else name, option or "MODEL.FCOS.INFERENCE_TH", 0.999999)
    outputs, expected = run_both(cfg, model, make_exportable(cfg, model))
    assert not any(map(len, expected)) and outputs["masks"].shape[1] > 0
    assert not any(values.any() for values in outputs.values())


@pytest.mark.parametrize(("name", "convention"), CASES)
def test_outputs_equal_the_models(name, convention, rng_seed):
    cfg = tiny_cfg(name, "MODEL.CONVENTION", convention)
    assert_outputs_equal(cfg, tiny_model(cfg))


def assert_outputs_equal(cfg, model):
    exportable = make_exportable(cfg, model)
    outputs, expected = run_both(cfg, model, exportable)
    for k, boxlist in enumerate(expected):
        count = int(outputs["count"][k])
        assert count == len(boxlist) > 0
        boxlist = in_order(boxlist, outputs["boxes"][k, :count], outputs["labels"][k, :count])
        torch.testing.assert_close(outputs["boxes"][k, :count], boxlist.bbox, atol=1e-3, rtol=1e-5)
        if boxlist.has_field("scores"):
            torch.testing.assert_close(outputs["scores"][k, :count], boxlist.get_field("scores"), atol=1e-5, rtol=0)
            assert torch.equal(outputs["labels"][k, :count], boxlist.get_field("labels"))
        for field, output in (("mask", "masks"), ("mask_scores", "mask_scores")):
            if boxlist.has_field(field):
                theirs = boxlist.get_field(field).reshape(outputs[output][k, :count].shape)
                torch.testing.assert_close(outputs[output][k, :count], theirs, atol=1e-4, rtol=0)
                assert not outputs[output][k, count:].any()
        if boxlist.has_field("keypoints"):
            points = boxlist.get_field("keypoints")
            torch.testing.assert_close(
                outputs["keypoints"][k, :count, :, :2], points.keypoints[:, :, :2], atol=1e-2, rtol=0
            )
            torch.testing.assert_close(
                outputs["keypoints"][k, :count, :, 2], points.get_field("logits"), atol=1e-3, rtol=1e-4
            )
    if "semantic" in exportable.names:
        assert outputs["semantic"].shape == (2, 4, 128, 160)


def test_all_places_give_the_same_outputs(rng_seed):
    cfg = tiny_cfg("mask")
    model = tiny_model(cfg)
    torch.manual_seed(rng_seed)
    few = run_both(cfg, model, make_exportable(cfg, model))[0]
    torch.manual_seed(rng_seed)
    all_places = run_both(cfg, model, make_exportable(cfg, model, all_places=True))[0]
    for name, values in few.items():
        torch.testing.assert_close(values, all_places[name], atol=1e-4, rtol=1e-5)


SEMANTIC = ("MODEL.META_ARCHITECTURE", "SemanticSegmentor", "MODEL.BACKBONE.CONV_BODY", "V-27")


def test_semantic_logits_equal_the_models(rng_seed):
    cfg = tiny_cfg("fcos", *SEMANTIC, "MODEL.SEM_SEG_HEAD.NUM_CLASSES", 5, "MODEL.DEEPLAB.CHANNELS", 32)
    model = tiny_model(cfg)
    exportable = make_exportable(cfg, model)
    images, sizes = example_inputs(exportable, 65, 97)
    images.random_(256)
    (found,) = exportable(images, sizes)
    with torch.no_grad():
        batch = exportable.network_input(images, sizes)
        torch.testing.assert_close(found, model.logits(ImageList(batch, [(65, 97)] * 2)), atol=1e-4, rtol=1e-4)


def test_dense_part_returns_the_heads_maps():
    cfg = tiny_cfg("fcos")
    part = make_exportable(cfg, tiny_model(cfg), dense_only=True)
    outputs = part(*example_inputs(part, 128, 160))
    assert len(outputs) == len(part.names) == 15
    by_name = dict(zip(part.names, outputs, strict=True))
    assert by_name["logits0"].shape == (2, 2, 16, 20) and by_name["centerness2"].shape == (2, 1, 4, 5)


@pytest.mark.parametrize(
    ("name", "semantic"),
    [("mask, mmdetection", False), ("centermask2", False), ("panoptic", True), ("panoptic centermask", True)],
)
def test_dense_part_has_maps_for_all_heads(name, semantic):
    cfg, model, _ = case(name)
    part = make_exportable(cfg, model, dense_only=True)
    outputs = dict(zip(part.names, part(*example_inputs(part, 128, 160)), strict=True))
    assert {f"features{level}" for level in range(5)} == {each for each in outputs if "features" in each}
    finest = outputs["logits0"].shape[2:]
    assert finest == outputs["features0"].shape[2:] == ((16, 20) if "centermask" in name else (32, 40))
    assert ("semantic" in outputs) == semantic


@pytest.mark.parametrize(
    ("name", "opts", "message"),
    [
        ("fcos", ("TEST.BBOX_AUG.ENABLED", True), "TEST.BBOX_AUG.ENABLED"),
        ("fcos", ("TEST.DETECTIONS_PER_IMG", 0), "TEST.DETECTIONS_PER_IMG is 0"),
        ("fcos", ("MODEL.FCOS.PRE_NMS_TOP_N", 0), "PRE_NMS_TOP_N"),
        ("faster", ("MODEL.RPN.FPN_POST_NMS_TOP_N_TEST", 0), "FPN_POST_NMS_TOP_N_TEST"),
    ],
)
def test_settings_without_an_exportable_form_are_named(name, opts, message):
    cfg = tiny_cfg(name, *opts)
    with pytest.raises(NotExportable, match=message):
        make_exportable(cfg, tiny_model(cfg))


def test_unknown_head_is_named():
    class OwnHead(torch.nn.Module):
        pass

    cfg = tiny_cfg("mask")
    model = tiny_model(cfg)
    model.roi_heads["mask"] = OwnHead()
    with pytest.raises(NotExportable, match="OwnHead"):
        make_exportable(cfg, model)
