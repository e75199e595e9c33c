import time

import pytest
import torch

from maskrcnn_benchmark.checkpoint.body_check import check_body
from maskrcnn_benchmark.checkpoint.matching import (
    align_and_update_state_dicts,
    load_state_dict,
    match_state_dicts,
    strip_prefix_if_present,
)
from maskrcnn_benchmark.config import cfg as defaults
from maskrcnn_benchmark.modeling.backbone import build_backbone


def shaped(entries):
    """Return meta tensors: only names and shapes matter."""
    return {key: torch.empty(tuple(shape), device="meta") for key, shape in entries}


class Nested(torch.nn.Module):
    def __init__(self):
        super().__init__()
        block = torch.nn.Module()
        block.layer1 = torch.nn.Linear(2, 3)
        block.layer2 = torch.nn.Linear(3, 2)
        block.res = torch.nn.Module()
        block.res.layer2 = torch.nn.Linear(3, 2)
        self.block1 = block


@pytest.mark.parametrize("wrap", [False, True])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_longest_suffix_wins(rng_seed, wrap, prefix):
    names = ("layer1", "layer2", "res.layer2")
    shapes = {"weight": {"layer1": (3, 2)}, "bias": {"layer1": (3,)}}
    state = {}
    for name in names:
        state[f"{prefix}{name}.weight"] = torch.rand(shapes["weight"].get(name, (2, 3)))
        state[f"{prefix}{name}.bias"] = torch.rand(shapes["bias"].get(name, (2,)))
    model = torch.nn.DataParallel(Nested()) if wrap else Nested()
    load_state_dict(model, state)
    block = (model.module if wrap else model).block1
    for name, module in (("layer1", block.layer1), ("layer2", block.layer2), ("res.layer2", block.res.layer2)):
        for kind in ("weight", "bias"):
            loaded, given = getattr(module, kind), state[f"{prefix}{name}.{kind}"]
            assert torch.equal(loaded, given)
            assert loaded.data_ptr() != given.data_ptr()


def test_one_file_tensor_may_match_two_keys_and_suffixes_need_no_dot():
    model = {"a.xconv": torch.zeros(2), "b.conv": torch.zeros(2)}
    report = align_and_update_state_dicts(model, {"conv": torch.ones(2), "other": torch.ones(1)})
    assert report.matched == {"a.xconv": "conv", "b.conv": "conv"}
    assert report.unused == ["other"]
    assert all(value.sum() == 2 for value in model.values())


@pytest.mark.filterwarnings("ignore")  # torch deprecates quantised tensors
@pytest.mark.parametrize("kind", ["sparse", "quantised", "complex", "meta"])
def test_tensors_without_plain_values_are_refused_and_the_model_is_not_changed(kind):
    weight = torch.ones(3, 2)
    odd = {
        "sparse": weight.to_sparse(),
        "quantised": torch.quantize_per_tensor(weight, 0.1, 0, torch.qint8),
        "complex": weight.to(torch.complex64),
        "meta": weight.to("meta"),
    }
    model = torch.nn.Linear(2, 3)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(ValueError, match="tensor weight of the file"):
        load_state_dict(model, {"bias": torch.ones(3), "weight": odd[kind]})
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_entries_with_numbers_as_names_are_skipped():
    model = torch.nn.Linear(2, 3)
    load_state_dict(model, {7: torch.ones(3), "bias": torch.ones(3)})
    assert model.bias.tolist() == [1, 1, 1]


def test_prefix_is_removed_only_if_every_key_has_it():
    assert dict(strip_prefix_if_present({"module.a": 1, "module.b": 2}, "module.")) == {"a": 1, "b": 2}
    assert dict(strip_prefix_if_present({"module.module.a": 1}, "module.")) == {"a": 1}
    assert dict(strip_prefix_if_present({"module.a.module.b": 1}, "module.")) == {"a.module.b": 1}
    mixed = {"module.a": 1, "b": 2}
    assert strip_prefix_if_present(mixed, "module.") is mixed


def test_report_names_missing_unused_and_counts(caplog):
    caplog.set_level("INFO")
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    report = load_state_dict(model, {"0.weight": torch.ones(2, 2), "1.weight": torch.ones(2), "fc.bias": torch.ones(3)})
    assert report.missing == ["0.bias", "1.bias", "1.running_mean", "1.running_var", "1.num_batches_tracked"]
    table = caplog.records[-1].getMessage()
    assert "2 of the model's 7 tensors" in table and "0.bias, 1.bias" in table and "fc.bias" in table
    assert "missing statistics" in table


def test_a_file_without_matching_tensors_gives_a_warning(caplog):
    load_state_dict(torch.nn.Linear(2, 2), {"conv.scale": torch.ones(1)})
    assert caplog.records[-1].levelname == "WARNING"


def test_shape_mismatch_names_key_and_both_shapes_and_changes_nothing():
    model = torch.nn.Linear(3, 2)
    before = model.weight.clone()
    with pytest.raises(ValueError, match=r"weight: file \(5, 3\), model \(2, 3\)"):
        load_state_dict(model, {"weight": torch.ones(5, 3), "bias": torch.ones(2)})
    assert torch.equal(model.weight, before)
    assert not torch.equal(model.bias, torch.ones(2))


@pytest.mark.parametrize(
    "heads, config_key, in_file, in_model",
    [
        ({"rpn.head.cls_logits.weight": (80, 8, 3, 3), "rpn.head.centerness.bias": (1,)}, "MODEL.FCOS", 81, 5),
        ({"roi_heads.box.predictor.cls_score.bias": (81,)}, "MODEL.ROI_BOX_HEAD", 81, 5),
        ({"roi_heads.box.predictor.bbox_pred.weight": (324, 8)}, "MODEL.ROI_BOX_HEAD", 81, 5),
    ],
)
def test_another_number_of_classes_is_explained(build_module, heads, config_key, in_file, in_model):
    rows = {80: 4, 81: 5, 324: 20, 1: 1}
    model = build_module([(key, (rows[shape[0]], *shape[1:])) for key, shape in heads.items()])
    state = {key: torch.ones(shape) for key, shape in heads.items()}
    with pytest.raises(ValueError) as error:
        load_state_dict(model, state)
    assert f"trained with {in_file} classes" in str(error.value) and f"the model has {in_model}" in str(error.value)
    assert f"{config_key}.NUM_CLASSES to {in_file}" in str(error.value)


def test_retinanet_classes_are_counted_per_anchor(build_module):
    def entries(classes):
        return [
            ("rpn.head.cls_tower.0.weight", (2, 2)),
            ("rpn.head.cls_logits.weight", (9 * classes, 2)),
            ("rpn.head.bbox_pred.weight", (36, 2)),
        ]

    state = {key: torch.ones(shape) for key, shape in entries(80)}
    with pytest.raises(ValueError, match="trained with 81 classes.*the model has 4.*RETINANET.NUM_CLASSES"):
        load_state_dict(build_module(entries(3)), state)


@pytest.mark.parametrize("variant, count", [("vovnet39", 195), ("vovnet57", 285), ("vovnet75", 375), ("vovnet93", 465)])
@pytest.mark.parametrize("spelling", ["norm", "bn"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_imagenet_vovnet_files_load_the_whole_body(matching, variant, count, spelling, prefix):
    body = matching[variant]["expected_keys"]
    model = shaped([(f"backbone.body.{key}", shape) for key, shape in body] + [("rpn.head.conv.weight", (4, 4))])
    file_state = shaped([(prefix + key.replace("/norm.", f"/{spelling}."), shape) for key, shape in body])
    file_state[f"{prefix}classifier.weight"] = torch.empty(1000, 1024, device="meta")
    file_state[f"{prefix}stem.stem_1/{spelling}.num_batches_tracked"] = torch.empty((), device="meta")
    report = match_state_dicts(model, strip_prefix_if_present(file_state, "module."))
    assert len(report.matched) == count and report.missing == ["rpn.head.conv.weight"]
    for key, file_key in report.matched.items():
        assert key == f"backbone.body.{file_key.replace(f'/{spelling}.', '/norm.')}"
    check_body(report)


def test_short_vovnet_names_match(matching):
    body = matching["vovnet39"]["expected_keys"]
    model = shaped([(f"backbone.body.{key}", shape) for key, shape in body])
    short = shaped([("/".join(key.split("/")[:-1]).split(".")[-1] + "/" + key.split("/")[-1], s) for key, s in body])
    assert len(match_state_dicts(model, short).matched) == 195


def test_bn_names_are_not_translated_if_the_model_has_them():
    names = ["stem.stem_1/bn.weight", "stem.stem_1/norm.weight"]
    model = shaped([(f"backbone.body.{name}", (3,)) for name in names])
    assert list(match_state_dicts(model, shaped([(name, (3,)) for name in names])).matched.values()) == names
    both_in_file = match_state_dicts(
        shaped([("x/norm.weight", (3,))]), shaped([("x/norm.weight", (3,)), ("x/bn.weight", (4,))])
    )
    assert both_in_file.matched == {"x/norm.weight": "x/norm.weight"} and both_in_file.unused == ["x/bn.weight"]


def torchvision_resnet50(matching):
    """Return the names of a torchvision ResNet-50: those of our body without the stem's prefix, and a classifier."""
    body = [(k, s) for k, s in matching["models"]["mask_R_50_FPN"] if k.startswith("backbone.body.")]
    names = [(key[len("backbone.body.") :].replace("stem.", ""), shape) for key, shape in body]
    return [*names, ("fc.weight", (1000, 2048)), ("fc.bias", (1000,)), ("bn1.num_batches_tracked", ())]


@pytest.mark.parametrize(
    "model_name, config, matched",
    [("mask_R_50_FPN", "e2e_faster_rcnn_R_50_FPN_1x", 265), ("mask_R_50_C4", "e2e_mask_rcnn_R_50_C4_1x", 315)],
)
def test_torchvision_resnets_match_as_in_the_forks(matching, model_name, config, matched):
    report = match_state_dicts(shaped(matching["models"][model_name]), shaped(torchvision_resnet50(matching)))
    assert len(report.matched) == matched and not report.mismatched
    expected = matching[f"torchvision_resnet50 -> {config}.yaml"]["examples"]
    assert {key: report.matched[key] for key in expected} == expected
    check_body(report)


def test_torchvision_mobilenet_loads_the_whole_body(matching):
    model = matching["models"]["fcos_MNV2"]
    file_keys = matching["torchvision_mobilenet_v2"]
    report = match_state_dicts(shaped(model), shaped(file_keys))
    body = [key for key, _ in model if key.startswith("backbone.body.")]
    assert [key for key in model if key[0].startswith("backbone.body.") and key[0] not in report.matched] == []
    assert not report.mismatched
    # both list the layers in the order of execution
    inner = [key for key, _ in file_keys if key.startswith("features.") and not key.startswith("features.18.")]
    assert [report.matched[key] for key in body] == inner
    assert all(key.startswith(("features.18.", "classifier.")) for key in report.unused)
    check_body(report)


def test_torchvision_mobilenet_loads_a_body_with_frozen_norms(matching):
    cfg = defaults.clone()
    cfg.merge_from_list(["MODEL.BACKBONE.CONV_BODY", "MNV2-FPNLite", "MODEL.BACKBONE.NORM", "FrozenBN"])
    with torch.device("meta"):
        model = {f"backbone.{key}": value for key, value in build_backbone(cfg).state_dict().items()}
    report = match_state_dicts(model, shaped(matching["torchvision_mobilenet_v2"]))
    assert {key for key in model if key not in report.matched} == {key for key in model if ".fpn." in key}
    check_body(report)


def test_the_forks_flat_mobilenet_names_are_not_translated(matching):
    model = matching["models"]["fcos_MNV2"]
    body = [(key[len("backbone.body.") :], shape) for key, shape in model if key.startswith("backbone.body.")]
    report = match_state_dicts(shaped(model), shaped(body))
    assert all(key == f"backbone.body.{file_key}" for key, file_key in report.matched.items())
    assert len(report.matched) == len(body)


def test_a_detectors_file_loads_into_a_body(matching):
    model = matching["models"]["fcos_V_39"]
    report = match_state_dicts(shaped(model), shaped(model))
    assert len(report.matched) == len(model) and not report.unused
    check_body(report)


@pytest.mark.parametrize("model_variant, file_variant", [("vovnet39", "vovnet57"), ("vovnet57", "vovnet39")])
def test_another_vovnet_is_refused(matching, model_variant, file_variant):
    model = shaped([(f"backbone.body.{key}", shape) for key, shape in matching[model_variant]["expected_keys"]])
    for prefix in ("", "backbone.body."):
        file_state = shaped([(prefix + key, shape) for key, shape in matching[file_variant]["expected_keys"]])
        with pytest.raises(ValueError, match="CONV_BODY"):
            check_body(match_state_dicts(model, file_state))


@pytest.mark.parametrize(
    "change",
    [
        lambda key: key.replace("/norm.", "/batch_norm."),
        lambda key: key.replace("/conv.", "/c."),
        lambda key: key.replace("/", "_"),
    ],
)
def test_renamed_backbone_is_refused_with_the_names_of_both_sides(matching, change):
    body = matching["vovnet39"]["expected_keys"]
    model = shaped([(f"backbone.body.{key}", shape) for key, shape in body])
    with pytest.raises(ValueError) as error:
        check_body(match_state_dicts(model, shaped([(change(key), shape) for key, shape in body])))
    message = str(error.value)
    assert "of the 195 tensors of backbone.body" in message
    assert "backbone.body.stem.stem_1/" in message and change("stem.stem_1/conv.weight")[:4] in message


def test_resnet_file_is_refused_for_a_vovnet(matching):
    model = shaped(matching["models"]["fcos_V_39"])
    with pytest.raises(ValueError, match="0 of the 195 tensors"):
        check_body(match_state_dicts(model, shaped(torchvision_resnet50(matching))))


def test_running_statistics_may_be_missing_completely_but_not_partly(matching):
    body = matching["vovnet39"]["expected_keys"]
    model = shaped([(f"backbone.body.{key}", shape) for key, shape in body])
    without = [(key, shape) for key, shape in body if ".running_" not in key]
    check_body(match_state_dicts(model, shaped(without)))
    partial = [*without, next(entry for entry in body if ".running_mean" in entry[0])]
    with pytest.raises(ValueError, match="running_mean"):
        check_body(match_state_dicts(model, shaped(partial)))


def test_batch_norm_file_is_refused_for_a_group_norm_body(matching):
    body = matching["vovnet39"]["expected_keys"]
    group_norm = shaped([(f"backbone.body.{key}", shape) for key, shape in body if ".running_" not in key])
    with pytest.raises(ValueError, match="another norm"):
        check_body(match_state_dicts(group_norm, shaped(body)))


def test_matching_time_is_not_proportional_to_the_product_of_the_keys():
    model = {f"backbone.body.stage{i}.block.layers.{i}.conv.weight": torch.zeros(1) for i in range(5000)}
    file_state = {f"other{i}.block.layers.{i}.conv.weight": torch.zeros(1) for i in range(20000)}
    start = time.perf_counter()
    match_state_dicts(model, file_state)
    assert time.perf_counter() - start < 5  # 10^8 comparisons of strings would take longer


def test_names_that_nearly_match_a_dialect_take_no_longer():
    near = {f"a{i}.model.OSA_2.OSA2_1.layers.0.1.weight": torch.zeros(1) for i in range(10000)}
    start = time.process_time()
    match_state_dicts({"x.weight": torch.zeros(1)}, {**near, "z.OSA2_1.layers.0.2.x": torch.zeros(1)})
    assert time.process_time() - start < 5  # searching from every name would take twenty seconds


def test_a_body_alone_loads_its_part_of_a_detector(build_module, random_state):
    body = [("stem.stem_1/conv.weight", (2, 3)), ("stage2.OSA2_1.ese.fc.bias", (2,))]
    heads = {"proposal_generator.rpn_head.conv.bias": torch.ones(2)}
    for prefix in ("backbone.bottom_up.", "backbone.body.", "module.backbone.body.", "img_backbone.", ""):
        values = random_state([(prefix + key, shape) for key, shape in body])
        model = build_module(body)
        others = {} if prefix.startswith("module.") else heads
        report = load_state_dict(model, {**values, **others})
        assert not report.missing and report.unused == list(others)
        assert all(torch.equal(model.state_dict()[key], values[prefix + key]) for key, _ in body)


def test_deformable_layers_load_ordinary_weights_and_their_own(build_module, random_state, caplog):
    caplog.set_level("INFO")
    layer = "backbone.body.layer2.0.conv2"
    model = build_module([(f"{layer}.offset.weight", (18, 2)), (f"{layer}.conv.weight", (4, 2))])
    ordinary = random_state([("layer2.0.conv2.weight", (4, 2))])
    report = load_state_dict(model, ordinary)
    assert report.missing == [f"{layer}.offset.weight"] and not report.unused
    assert torch.equal(model.state_dict()[f"{layer}.conv.weight"], ordinary["layer2.0.conv2.weight"])
    assert "Remapping conv weights for deformable conv weights" in caplog.text

    caplog.clear()
    own = random_state([("layer2.0.conv2.offset.weight", (18, 2)), ("layer2.0.conv2.conv.weight", (4, 2))])
    assert load_state_dict(model, own).missing == []
    assert torch.equal(model.state_dict()[f"{layer}.conv.weight"], own["layer2.0.conv2.conv.weight"])
    assert "Remapping" not in caplog.text


def test_a_second_name_of_a_shared_layer_is_not_missing():
    model = torch.nn.ModuleDict({"box": torch.nn.Linear(2, 2)})
    model["mask"] = model["box"]
    report = load_state_dict(model, {"box.weight": torch.ones(2, 2), "box.bias": torch.ones(2)})
    assert not report.missing and report.matched["mask.weight"] == "box.weight"
    assert model["mask"].weight.sum() == 4


def test_anchors_come_from_the_config_and_classifiers_are_never_used(build_module, caplog):
    caplog.set_level("INFO")
    model = build_module([("backbone.body.x", (2,)), ("rpn.anchor_generator.cell_anchors.0", (3, 4))])
    file_state = {"x": torch.ones(2), "fc.bias": torch.ones(9), "bn1.num_batches_tracked": torch.tensor(3)}
    report = load_state_dict(model, file_state)
    assert not report.missing and not report.unused
    assert report.from_config == ["rpn.anchor_generator.cell_anchors.0"]
    assert report.without_use == ["fc.bias", "bn1.num_batches_tracked"]
    assert "fc.bias" in caplog.records[-1].getMessage()
