"""Compare SemanticSegmentor with recorded outputs of VoVNet-DeepLabV3, and test its contract."""

import gzip
import json

import numpy as np
import pytest
import torch
from helpers import fill_d2
from helpers.golden_models import CONFIGS, GOLDEN
from helpers.initial_weights import zeros_instead_of_random_weights

from maskrcnn_benchmark.checkpoint.body_check import check_body
from maskrcnn_benchmark.checkpoint.matching import load_state_dict, match_state_dicts, tensors_of
from maskrcnn_benchmark.checkpoint.translation import convert_state_dict
from maskrcnn_benchmark.config import cfg as defaults
from maskrcnn_benchmark.fast.for_inference import for_inference
from maskrcnn_benchmark.modeling.detector import build_detection_model
from maskrcnn_benchmark.structures.bounding_box import BoxList
from maskrcnn_benchmark.structures.image_list import to_image_list
from maskrcnn_benchmark.structures.semantic_map import IGNORE_LABEL, SemanticMap

MEAN, STD = (torch.tensor(numbers).view(3, 1, 1) for numbers in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
# In float64 our gradients differ from the recorded ones by 5e-4 of the largest, which is the float32 noise after 40
# norms; in float32 by up to 1.6e-3. GRADIENT_NORM is the tolerance of the norm of all values.
GRADIENT, GRADIENT_NORM = 5e-3, 1e-3
# The step changes the stem's weights by 6e-3 of the largest one, and part of it is the gradient's noise.
WEIGHT_AFTER_STEP = 3e-4
# Of 116,162 pixels, twice the number of those whose two best classes differ only by rounding.
TIES = 8
# A quarter of V-27's width: fast, and with the same structure.
TINY = [
    *("MODEL.META_ARCHITECTURE", "SemanticSegmentor", "MODEL.BACKBONE.CONV_BODY", "V-27"),
    *("MODEL.BACKBONE.OUTPUT_STRIDE", 16, "MODEL.BACKBONE.FREEZE_CONV_BODY_AT", 0, "MODEL.BACKBONE.NORM", "BN"),
    *("MODEL.VOVNET.STEM_CHANNELS", [16, 16, 16], "MODEL.VOVNET.STAGE_CONV_CHANNELS", [16, 16, 16, 16]),
    *("MODEL.VOVNET.STAGE_OUT_CHANNELS", [16, 16, 16, 32], "MODEL.VOVNET.OUT_CHANNELS", 16),
    *("MODEL.DEEPLAB.CHANNELS", 16, "MODEL.SEM_SEG_HEAD.NUM_CLASSES", 5),
]


def build(config=None, opts=()):
    cfg = defaults.clone()
    if config:
        cfg.merge_from_file(str(CONFIGS / config))
    cfg.merge_from_list(list(opts))
    return build_detection_model(cfg)


def original_name(key):
    return key.removeprefix("backbone.body.").replace("stem.conv1", "conv1").replace("stem.bn1", "bn1")


@torch.no_grad()
def fill(model):
    for key, tensor in model.state_dict().items():
        value = fill_d2.value(original_name(key), tensor.shape) if tensor.is_floating_point() else None
        if value is not None:
            tensor.copy_(torch.from_numpy(value))


def inputs():
    """Return both images (2, 3, 241, 241) and their labels (2, 241, 241)."""
    arrays = np.load(GOLDEN / "d2" / "inputs.npz")
    images = [torch.from_numpy(arrays[f"image{i}_rgb"][:241, :241].copy()).permute(2, 0, 1) for i in (0, 1)]
    labels = torch.stack([torch.from_numpy(arrays[f"sem_seg{i}"][:241, :241].copy()) for i in (0, 1)])
    return (torch.stack(images) / 255 - MEAN) / STD, torch.where(labels == IGNORE_LABEL, labels, labels % 21)


@pytest.fixture(scope="module")
def golden():
    return json.loads((GOLDEN / "d2" / "deeplab" / "vovnet39.json").read_text())


@pytest.fixture
def filled():
    with zeros_instead_of_random_weights():
        model = build("vovnet/deeplabv3_V_39_voc.yaml")
    fill(model)
    return model


def assert_like(ours, recorded, tolerance=1e-4):
    """Compare 64 values, relative to the largest one."""
    if "shape" in recorded:
        assert list(ours.shape) == recorded["shape"]
    values = torch.tensor(recorded["values"])
    found = ours.detach().reshape(-1)[torch.from_numpy(fill_d2.pick(ours.numel()))]
    largest = recorded.get("absmax", values.abs().max().item())
    assert (found - values).abs().max().item() <= tolerance * largest


def in_golden_groups(model, lr):
    groups = [{"params": model.backbone.parameters()}, {"params": model.aspp.parameters()}]
    return torch.optim.SGD(groups, lr=lr, momentum=0.9, weight_decay=1e-4)


def test_evaluation_equals_the_original(filled, golden):
    images, labels = inputs()
    filled.eval()
    recorded, found = golden["activations_eval"], {}
    for name in recorded:
        module = filled.get_submodule(name if name.startswith("aspp") else f"backbone.body.{name}")
        module.register_forward_hook(lambda _, args, out, name=name: found.update({name: out.clone()}))
    logits = filled.logits(images)
    for name, record in recorded.items():
        assert_like(found[name], record)
    assert_like(logits, golden["logits_eval"])
    loss = filled.loss(logits, labels.long())
    assert loss.item() == pytest.approx(golden["loss_eval_mode"], rel=1e-5)
    loss.backward()
    for name, record in golden["grad_eval_bn"].items():
        grad = filled.get_parameter(name if name.startswith("aspp") else f"backbone.body.{name}").grad
        assert grad.norm().item() == pytest.approx(record["norm"], rel=GRADIENT_NORM)
        assert_like(grad, record, GRADIENT)
    with torch.no_grad():
        classes = np.stack([result.get_field("semantic").unpack() for result in filled(images)]).ravel()
    labels = labels.numpy().ravel()
    counted, agree = labels != IGNORE_LABEL, labels == classes
    found, there, both = (np.bincount(x, minlength=21) for x in (classes[counted], labels[counted], labels[agree]))
    for ours, name in ((both, "inter"), (found + there - both, "union")):
        assert np.abs(ours - golden[name]).sum() <= TIES
    assert np.abs(np.bincount(classes, minlength=21) - golden["argmax_counts"]).sum() <= TIES
    assert 100 * np.mean(both / (found + there - both)) == pytest.approx(golden["mean_iou_percent"], abs=1e-3)


def test_training_step_equals_the_original(filled, golden):
    images, labels = inputs()
    optimizer = in_golden_groups(filled, lr=0.007)
    (loss,) = filled(images, [SemanticMap(each) for each in labels]).values()
    assert loss.item() == pytest.approx(golden["loss_train_mode"], rel=1e-5)
    loss.backward()
    for name, record in golden["running_after_one_forward"].items():
        assert_like(filled.get_buffer(name if name.startswith("aspp") else f"backbone.body.{name}"), record)
    optimizer.step()
    for name, record in golden["after_one_sgd_step_lr0.007"].items():
        assert_like(
            filled.get_parameter(name if name.startswith("aspp") else f"backbone.body.{name}"),
            record,
            WEIGHT_AFTER_STEP,
        )


@pytest.mark.parametrize("body", ["V_39", "V_57", "R_50", "R_101", "R_152", "D_161", "D_201"])
@pytest.mark.parametrize(("dataset", "classes"), [("voc", 21), ("cityscapes", 19)])
def test_configs_match_the_originals(body, dataset, classes):
    with torch.device("meta"):
        model = build(f"vovnet/deeplabv3_{body}_{dataset}.yaml")
    assert model.aspp.conv3.weight.shape == (classes, 256, 1, 1)
    assert model.backbone.body.out_strides == (4, 8, 16, 16)
    norms = {
        part: {(m.eps, m.momentum) for m in getattr(model, part).modules() if isinstance(m, torch.nn.BatchNorm2d)}
        for part in ("backbone", "aspp")
    }
    resnet = body[0] == "R"
    assert norms == {"backbone": {(1e-5, 0.05 if resnet else 0.1)}, "aspp": {(1e-5, 3e-4) if resnet else (3e-4, 0.1)}}
    dilations = {m.dilation[0] for m in model.backbone.modules() if isinstance(m, torch.nn.Conv2d)}
    assert dilations == {1, 2} and model.align_corners
    assert [getattr(model.aspp, f"aspp{k}").dilation[0] for k in range(1, 6)] == [1, 6, 12, 18, 1]
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.fixture
def tiny(rng_seed):
    return build(opts=TINY)


def test_result_has_the_output_size_and_no_boxes(tiny):
    images = [torch.randn(3, 50, 70), torch.randn(3, 64, 33)]
    with torch.no_grad():
        first, second = tiny.eval()(images)
        resized, _ = tiny(images, output_sizes=[(140, 100), (33, 64)])
    assert [r.get_field("semantic").unpack().shape for r in (first, second, resized)] == [
        (50, 70),
        (64, 33),
        (100, 140),
    ]
    assert len(first) == 0 and first.size == (70, 50)


def test_classes_are_the_argmax_of_the_logits(tiny):
    images = to_image_list([torch.randn(3, 50, 70), torch.randn(3, 64, 33)])
    with torch.no_grad():
        logits = tiny.eval().logits(images)
        result = tiny(images)[1].get_field("semantic").unpack()
    assert logits.shape == (2, 5, 64, 70) and logits.dtype == torch.float32
    assert (logits[1, :, :64, :33].argmax(0).numpy() == result).all()


@pytest.mark.parametrize("wrapped", [False, True], ids=["SemanticMap", "BoxList"])
def test_padding_is_ignored(tiny, wrapped):
    images = [torch.randn(3, 48, 64), torch.randn(3, 64, 48)]
    targets = [SemanticMap(torch.randint(0, 5, image.shape[1:], dtype=torch.uint8)) for image in images]
    boxed = [BoxList(torch.zeros(0, 4), target.size) for target in targets]
    for box, target in zip(boxed, targets, strict=True):
        box.add_field("semantic", target)
    losses = tiny(images, boxed if wrapped else targets)
    logits = tiny.logits(to_image_list(images))
    pixels = [logits[0, :, :48, :64].flatten(1), logits[1, :, :64, :48].flatten(1)]
    labels = torch.cat([target.labels.flatten() for target in targets]).long()
    expected = torch.nn.functional.cross_entropy(torch.cat(pixels, 1).t(), labels)
    assert list(losses) == ["loss_semantic"]
    torch.testing.assert_close(losses["loss_semantic"], expected)


def test_all_ignored_labels_keep_every_parameter_in_the_graph(tiny):
    targets = [SemanticMap(torch.full((64, 64), IGNORE_LABEL, dtype=torch.uint8))] * 2
    loss = tiny(torch.randn(2, 3, 64, 64), targets)["loss_semantic"]
    loss.backward()
    assert loss.item() == 0
    assert all(parameter.grad is not None and (parameter.grad == 0).all() for parameter in tiny.parameters())


@pytest.mark.parametrize("targets", [None, [], [BoxList(torch.zeros(0, 4), (64, 64))] * 2])
def test_training_without_maps_is_refused(tiny, targets):
    with pytest.raises(ValueError, match="FORMAT: semantic"):
        tiny(torch.randn(2, 3, 64, 64), targets)


def test_training_a_batch_norm_on_one_image_is_refused(tiny):
    with pytest.raises(ValueError, match="SOLVER.IMS_PER_BATCH"):
        tiny(torch.randn(1, 3, 64, 64), [SemanticMap(torch.zeros(64, 64, dtype=torch.uint8))])


@pytest.mark.parametrize("norm", ["GN", "FrozenBN"])
def test_other_norms_train_on_one_image(norm, rng_seed):
    model = build(opts=[*TINY, "MODEL.DEEPLAB.NORM", norm, "MODEL.GROUP_NORM.NUM_GROUPS", 4])
    loss = model(torch.randn(1, 3, 64, 64), [SemanticMap(torch.zeros(64, 64, dtype=torch.uint8))])["loss_semantic"]
    assert loss.isfinite()


def test_decoder_returns_logits_of_stride_4(rng_seed):
    model = build(opts=[*TINY, "MODEL.DEEPLAB.DECODER", True]).eval()
    with torch.no_grad():
        assert model.aspp(model.backbone(torch.randn(1, 3, 65, 97))).shape == (1, 5, 17, 25)
        assert model.logits(torch.randn(1, 3, 65, 97)).shape == (1, 5, 65, 97)


@pytest.mark.parametrize(
    ("opts", "named"),
    [
        (["MODEL.BACKBONE.CONV_BODY", "V-39-FPN", "MODEL.BACKBONE.OUTPUT_STRIDE", 32], "CONV_BODY"),
        (["MODEL.SEM_SEG_HEAD.NUM_CLASSES", -1], "NUM_CLASSES"),
        (["MODEL.SEM_SEG_HEAD.NUM_CLASSES", 256], "NUM_CLASSES"),
        (["MODEL.SEM_SEG_HEAD.CLASS_WEIGHTS", (1.0, 2.0)], "CLASS_WEIGHTS"),
        (["MODEL.SEM_SEG_HEAD.LOSS", "focal"], "SEM_SEG_HEAD.LOSS"),
        (["MODEL.DEEPLAB.RATES", (6, 12)], "MODEL.DEEPLAB.RATES"),
    ],
)
def test_impossible_configs_are_refused(opts, named):
    with pytest.raises(ValueError, match=named):
        build(opts=[*TINY, *opts])


def test_logits_equal_torchvision(rng_seed):
    torchvision = pytest.importorskip("torchvision")
    theirs = torchvision.models.segmentation.deeplabv3_resnet50(weights=None, weights_backbone=None, aux_loss=True)
    for module in theirs.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 2)
    ours = build("deeplabv3_R_50_torchvision.yaml")
    report = load_state_dict(ours, theirs.state_dict())
    assert not report.missing and all(key.startswith("aux_classifier.") for key in report.unused) and report.unused
    image = torch.randn(1, 3, 97, 65)
    with torch.no_grad():
        expected = theirs.eval()(image)["out"]
        torch.testing.assert_close(ours.eval().logits(image), expected, rtol=0, atol=1e-4 * expected.abs().max().item())


KEY_LISTS = {"vovnet39": "V_39", "resnet50": "R_50"}


@pytest.mark.parametrize("name", KEY_LISTS)
@pytest.mark.parametrize("prefix", ["", "module."])
def test_original_checkpoints_load_completely_and_are_written_back(name, prefix):
    path = GOLDEN / "d2" / "state_dicts" / "VoVNet-DeepLabV3" / f"{name}.json.gz"
    listed = {key: tuple(shape) for key, shape, _ in json.loads(gzip.decompress(path.read_bytes()))["keys"]}
    file = {prefix + key: torch.empty(shape, device="meta") for key, shape in listed.items()}
    with torch.device("meta"):
        model = build(f"vovnet/deeplabv3_{KEY_LISTS[name]}_voc.yaml")
    report = match_state_dicts(model.state_dict(), tensors_of(file))
    check_body(report)
    assert not (report.missing or report.unused or report.mismatched or report.without_use)
    assert report.dialects[-1] == "VoVNet-DeepLabV3"
    again, left_out = convert_state_dict(model.state_dict(), "deeplab")
    assert not left_out and {key: tuple(value.shape) for key, value in again.items()} == listed


@pytest.mark.parametrize(("body", "count"), [("D_161", 1003), ("D_201", 1243), ("V_57", None), ("R_152", None)])
def test_keys_of_other_bodies_equal_the_originals(body, count):
    with torch.device("meta"):
        model = build(f"vovnet/deeplabv3_{body}_voc.yaml")
    theirs, left_out = convert_state_dict(model.state_dict(), "deeplab")
    assert not left_out and len(theirs) == len(model.state_dict()) and count in (None, len(theirs))
    assert not any(key.startswith("backbone.") for key in theirs)
    report = match_state_dicts(model.state_dict(), theirs)
    assert not (report.missing or report.unused or report.mismatched)


def test_parts_without_an_original_name_are_refused():
    with torch.device("meta"):
        model = build(opts=[*TINY, "MODEL.DEEPLAB.DECODER", True])
    with pytest.raises(ValueError, match="deeplab has no names for aspp.decoder"):
        convert_state_dict(model.state_dict(), "deeplab")


def test_our_checkpoint_is_not_detected_as_the_original_dialect():
    with torch.device("meta"):
        state = build(opts=TINY).state_dict()
    assert match_state_dicts(state, state).dialects == ()


@pytest.mark.parametrize("stride", [8, 16])
def test_for_inference_returns_the_same_logits(stride, rng_seed):
    model = build(opts=[*TINY, "MODEL.BACKBONE.OUTPUT_STRIDE", stride, "MODEL.DEEPLAB.DECODER", True]).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 2)
    image = torch.randn(2, 3, 75, 97)
    with torch.inference_mode():
        expected, found = model.logits(image), for_inference(model).logits(image)
    assert not any(isinstance(part, torch.nn.BatchNorm2d) for part in for_inference(model).modules())
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4 * expected.abs().max().item())
