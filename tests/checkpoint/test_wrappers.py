import pytest
import torch

from maskrcnn_benchmark.checkpoint.checkpointer import Checkpointer, DetectronCheckpointer
from maskrcnn_benchmark.checkpoint.matching import load_state_dict, tensors_of
from maskrcnn_benchmark.config import cfg as defaults

BODY = [
    ("stem.stem_1/conv.weight", (2, 3, 3, 3)),
    ("stage2.OSA2_1.concat.weight", (4, 2)),
    ("stage2.OSA2_1.ese.fc.weight", (4, 4)),
    ("stage2.OSA2_1.ese.fc.bias", (4,)),
]
DETECTOR = [
    *(("backbone.body." + key, shape) for key, shape in BODY),
    ("backbone.fpn.fpn_inner1.weight", (2, 4)),
    ("rpn.head.conv.weight", (2, 2)),
    ("roi_heads.box.predictor.cls_score.weight", (3, 2)),
]
PREFIXES = (
    "_orig_mod.",
    "module._orig_mod.",
    "_orig_mod.module.",
    "model.",
    "model._orig_mod.",
    "model.module.",
    "module.model.detector.",
    "net.",
    "ema_model.module.",
    "_fsdp_wrapped_module.",
)


def assert_loaded(model, values, report):
    assert not report.missing
    for (key, value), wanted in zip(model.state_dict().items(), values.values(), strict=True):
        assert torch.equal(value, wanted), key


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("more", [{}, {"n_averaged": torch.tensor(3)}, {"criterion.scale": torch.ones(2)}])
def test_a_detector_behind_a_wrapper_is_read(build_module, random_state, prefix, more):
    values = random_state(DETECTOR)
    model = build_module(DETECTOR)
    assert_loaded(model, values, load_state_dict(model, {**{prefix + k: v for k, v in values.items()}, **more}))


@pytest.mark.parametrize(
    "prefix",
    [
        *PREFIXES,
        "encoder.",
        "bottom_up.",
        "model.backbone.",
        "backbone.",
        "pts.img_encoder.",
        "_orig_mod.img_backbone.",
    ],
)
def test_a_body_behind_a_wrapper_is_read(build_module, random_state, prefix):
    values = random_state(BODY)
    model = build_module(BODY)
    others = {"head.cls.weight": torch.ones(2, 2)}
    assert_loaded(model, values, load_state_dict(model, {**{prefix + k: v for k, v in values.items()}, **others}))


def test_dialects_are_recognised_behind_wrappers(build_module, random_state):
    theirs = {"model.backbone.bottom_up." + key: value for key, value in random_state(BODY).items()}
    theirs["model.proposal_generator.rpn_head.conv.weight"] = torch.full((2, 2), 3.0)
    model = build_module([*DETECTOR[:4], DETECTOR[5]])
    report = load_state_dict(model, theirs)
    assert not report.missing and report.dialects == ("detectron2 detector",)


def test_compiled_submodules_are_read_and_written(build_module, random_state, tmp_path):
    values = random_state(DETECTOR)
    compiled = build_module(DETECTOR)
    part = compiled.rpn
    compiled.rpn = torch.nn.Module()
    compiled.rpn.add_module("_orig_mod", part)
    load_state_dict(compiled, values)
    assert torch.equal(compiled.state_dict()["rpn._orig_mod.head.conv.weight"], values["rpn.head.conv.weight"])

    Checkpointer(compiled, save_dir=str(tmp_path), save_to_disk=True).save("m")
    plain = build_module(DETECTOR)
    checkpointer = Checkpointer(plain, save_dir=str(tmp_path))
    checkpointer.load()
    assert_loaded(plain, {key: values[key] for key in plain.state_dict()}, checkpointer.report)
    assert checkpointer.report.matched["rpn.head.conv.weight"] == "rpn.head.conv.weight"


def test_an_averaged_model_keeps_its_count(rng_seed, tmp_path):
    trained, fresh = (torch.optim.swa_utils.AveragedModel(torch.nn.Linear(2, 3)) for _ in range(2))
    trained.update_parameters(torch.nn.Linear(2, 3))
    Checkpointer(trained, save_dir=str(tmp_path), save_to_disk=True).save("m")
    Checkpointer(fresh, save_dir=str(tmp_path)).load()
    assert fresh.n_averaged == 1
    assert all(torch.equal(a, b) for a, b in zip(trained.parameters(), fresh.parameters(), strict=True))


@pytest.mark.parametrize("wrap", [torch.compile, torch.nn.DataParallel])
def test_wrapped_models_are_saved_with_the_names_of_the_model(rng_seed, tmp_path, wrap):
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 1))
    Checkpointer(wrap(model), save_dir=str(tmp_path), save_to_disk=True).save("m")
    fresh = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 1))
    Checkpointer(wrap(fresh), save_dir=str(tmp_path)).load()
    assert list(torch.load(tmp_path / "m.pth", weights_only=True)["model"]) == list(model.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), fresh.parameters(), strict=True))


def test_two_matching_sets_of_weights_are_refused_unless_equal(build_module, random_state):
    student, teacher = random_state(BODY), random_state(BODY)
    both = {
        f"{who}.{key}": value
        for who, part in (("student", student), ("teacher", teacher))
        for key, value in part.items()
    }
    with pytest.raises(ValueError, match=r"different sets of weights that match, under 'student\.' and 'teacher\.'"):
        load_state_dict(build_module(BODY), both)
    both |= {"teacher." + key: value for key, value in student.items()}
    model = build_module(BODY)
    assert_loaded(model, student, load_state_dict(model, both))


def test_a_name_does_not_match_by_its_last_part_alone(build_module, random_state):
    model = build_module(BODY)
    report = load_state_dict(model, random_state([("layer1.0.conv1.weight", (4, 4)), ("layer1.0.conv1.bias", (4,))]))
    assert not report.matched


def test_bodies_of_mmdetection_keep_their_model_prefix(random_state):
    state = random_state([("model.stem.0.weight", (2, 3)), ("model.OSA_2.OSA2_1.ese.fc.bias", (2,))])
    assert list(tensors_of(state)) == list(state)
    assert list(tensors_of({"model.backbone." + key: value for key, value in state.items()})) == [
        "backbone." + key for key in state
    ]


@pytest.mark.parametrize("entry", ["ema", "model_ema", "state_dict_ema", "model_state_dict", "net"])
def test_entries_of_other_programs_are_found(build_module, random_state, tmp_path, entry):
    values = random_state(BODY)
    torch.save({entry: {"module." + key: value for key, value in values.items()}, "epoch": 3}, tmp_path / "m.pth")
    model = build_module(BODY)
    checkpointer = Checkpointer(model)
    assert checkpointer.load(tmp_path / "m.pth") == {"epoch": 3}
    assert_loaded(model, values, checkpointer.report)


def test_a_file_that_lacks_weights_of_the_body_is_refused(build_module, random_state, tmp_path):
    nothing = [(f"blocks.{i}.weight", shape) for i, (_, shape) in enumerate(BODY)]
    part = [(key.replace("concat", "join"), shape) for key, shape in BODY]
    for state, words in ((nothing, "0 of the 4 tensors of the body"), (part, "3 of the 4 tensors of the body")):
        torch.save(random_state(state), tmp_path / "m.pth")
        model = build_module(BODY)
        with pytest.raises(ValueError, match=rf"m\.pth: The file does not fit the backbone: {words}"):
            Checkpointer(model).load(tmp_path / "m.pth")
        assert not any(value.any() for value in model.state_dict().values())


def test_a_model_without_a_body_requires_at_least_one_tensor(tmp_path):
    torch.save({"conv.scale": torch.ones(1)}, tmp_path / "m.pth")
    with pytest.raises(ValueError, match=r"m\.pth: The file does not fit the model: no tensor of the model was found"):
        Checkpointer(torch.nn.Linear(2, 2)).load(tmp_path / "m.pth")


FCOS_HEAD = [("rpn.head.cls_logits.weight", (80, 2, 3, 3)), ("rpn.head.centerness.weight", (1, 2, 3, 3))]
RPN_HEAD = [("rpn.head.conv.weight", (2, 2)), ("rpn.head.cls_logits.weight", (3, 2, 1, 1)), DETECTOR[-1]]
RETINANET_HEAD = [("rpn.head.cls_tower.0.weight", (2, 2)), ("rpn.head.cls_logits.weight", (18, 2, 3, 3))]


@pytest.mark.parametrize(
    ("of_file", "of_model", "words"),
    [
        (FCOS_HEAD, RPN_HEAD, "holds a FCOS, but the config builds a Faster R-CNN.*MODEL.FCOS_ON True"),
        (RPN_HEAD, FCOS_HEAD, "holds a Faster R-CNN, but the config builds a FCOS.*MODEL.FCOS_ON False"),
        (RETINANET_HEAD, FCOS_HEAD, "holds a RetinaNet, but the config builds a FCOS.*MODEL.RETINANET_ON True"),
    ],
)
def test_a_file_of_another_detector_is_named(build_module, random_state, tmp_path, caplog, of_file, of_model, words):
    body = DETECTOR[:4]
    torch.save(random_state([*body, *of_file]), tmp_path / "m.pth")
    model = build_module([*body, *of_model])
    with pytest.raises(ValueError, match=words) as refused:
        DetectronCheckpointer(defaults, model).load(tmp_path / "m.pth")
    assert "nchors" not in str(refused.value)
    DetectronCheckpointer(defaults, model).load(tmp_path / "m.pth", skip_mismatched_heads=True)
    assert "Only tensors that both have in common are loaded" in caplog.text
