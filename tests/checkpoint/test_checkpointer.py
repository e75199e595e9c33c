import logging
import os
import shutil

import numpy as np
import pytest
import torch
from yacs.config import CfgNode

from maskrcnn_benchmark.checkpoint.checkpointer import Checkpointer, DetectronCheckpointer
from maskrcnn_benchmark.checkpoint.safe_unpickle import load_pickled
from maskrcnn_benchmark.checkpoint.safetensors_file import write_safetensors


def make_model():
    return torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3), torch.nn.Linear(3, 1))


def wrapped(model, wrap):
    return torch.nn.DataParallel(model) if wrap else model


def equal(first, second):
    first, second = first.state_dict(), second.state_dict()
    return all(torch.equal(a, b) for a, b in zip(first.values(), second.values(), strict=True))


def make_training():
    model = make_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    return model, optimizer, torch.optim.lr_scheduler.MultiStepLR(optimizer, [2, 4])


def train(model, optimizer, scheduler, steps=3):
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.rand(4, 2)).square().sum().backward()
        optimizer.step()
        scheduler.step()


@pytest.mark.parametrize("saved_wrapped", [False, True])
@pytest.mark.parametrize("loaded_wrapped", [False, True])
def test_last_checkpoint_is_found_and_loaded(rng_seed, tmp_path, saved_wrapped, loaded_wrapped):
    trained, fresh = wrapped(make_model(), saved_wrapped), wrapped(make_model(), loaded_wrapped)
    Checkpointer(trained, save_dir=str(tmp_path), save_to_disk=True).save("checkpoint_file")
    path = os.path.join(str(tmp_path), "checkpoint_file.pth")
    assert (tmp_path / "last_checkpoint").read_bytes() == path.encode()
    assert all(not key.startswith("module.") for key in torch.load(path, weights_only=True)["model"])

    checkpointer = Checkpointer(fresh, save_dir=str(tmp_path))
    assert checkpointer.has_checkpoint() and checkpointer.get_checkpoint_file() == path
    assert checkpointer.load() == {}
    assert equal(*(getattr(model, "module", model) for model in (trained, fresh)))
    assert all(a.data_ptr() != b.data_ptr() for a, b in zip(trained.parameters(), fresh.parameters(), strict=True))


@pytest.mark.parametrize("saved_wrapped", [False, True])
@pytest.mark.parametrize("loaded_wrapped", [False, True])
def test_a_given_file_is_loaded(rng_seed, tmp_path, saved_wrapped, loaded_wrapped):
    trained, fresh = wrapped(make_model(), saved_wrapped), wrapped(make_model(), loaded_wrapped)
    path = tmp_path / "model.pth"
    torch.save({"model": trained.state_dict(), "iteration": 5}, path)  # with "module.", as in the forks
    (tmp_path / "elsewhere").mkdir()
    checkpointer = Checkpointer(fresh, save_dir=str(tmp_path / "elsewhere"))
    assert not checkpointer.has_checkpoint() and checkpointer.get_checkpoint_file() == ""
    assert checkpointer.load(str(path)) == {"iteration": 5}
    assert equal(*(getattr(model, "module", model) for model in (trained, fresh)))


@pytest.mark.parametrize("entry", [None, "model", "state_dict"])
def test_bare_state_dicts_and_other_entry_names_are_read(rng_seed, tmp_path, entry):
    trained, fresh = make_model(), make_model()
    torch.save({entry: trained.state_dict()} if entry else trained.state_dict(), tmp_path / "m.pth")
    assert Checkpointer(fresh).load(tmp_path / "m.pth") == {}
    assert equal(trained, fresh)


def test_without_a_file_the_model_is_not_changed(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    assert Checkpointer(make_model(), save_dir=str(tmp_path)).load() == {}
    assert Checkpointer(make_model()).load("") == {}
    assert "No checkpoint found. Initializing model from scratch" in caplog.text


def test_only_the_process_with_save_to_disk_writes(tmp_path):
    for save_dir, save_to_disk in ((str(tmp_path), None), (str(tmp_path), False), ("", True)):
        Checkpointer(make_model(), save_dir=save_dir, save_to_disk=save_to_disk).save("model_final")
    assert os.listdir(tmp_path) == []


def test_training_state_round_trips(rng_seed, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    training = make_training()
    train(*training)
    extra = {"iteration": 3, "best_score": np.float64(0.25), "rng_state": torch.get_rng_state(), "class_names": ["bee"]}
    Checkpointer(*training, save_dir=str(tmp_path), save_to_disk=True).save("model_0000003", **extra)

    resumed = make_training()
    rest = Checkpointer(*resumed, save_dir=str(tmp_path)).load("ignored.pth")
    assert rest.keys() == extra.keys() and rest["iteration"] == 3 and type(rest["best_score"]) is float
    assert torch.equal(rest["rng_state"], extra["rng_state"])
    torch.manual_seed(0)
    train(*training)
    torch.manual_seed(0)
    train(*resumed)
    assert equal(training[0], resumed[0]) and training[2].last_epoch == resumed[2].last_epoch == 6
    for line in ("Saving checkpoint to", "Loading checkpoint from", "Loading optimizer from", "Loading scheduler from"):
        assert f"{line} {tmp_path}/model_0000003.pth" in caplog.text


def test_saved_files_need_no_allow_list(tmp_path):
    training = make_training()
    train(*training)
    Checkpointer(*training, save_dir=str(tmp_path), save_to_disk=True).save("m", iteration=np.int64(3))
    assert torch.load(tmp_path / "m.pth", weights_only=True)["iteration"] == 3


def test_entries_of_other_types_are_refused_and_the_old_file_is_kept(tmp_path):
    checkpointer = Checkpointer(make_model(), save_dir=str(tmp_path), save_to_disk=True)
    checkpointer.save("m", iteration=1)
    before = (tmp_path / "m.pth").read_bytes()
    with pytest.raises(TypeError, match=r"checkpoint\['cfg'\].*CfgNode"):
        checkpointer.save("m", cfg=CfgNode({"A": 1}))
    assert (tmp_path / "m.pth").read_bytes() == before


def test_model_only_does_not_load_the_solver(rng_seed, tmp_path):
    training = make_training()
    train(*training)
    Checkpointer(*training, save_dir=str(tmp_path), save_to_disk=True).save("m", iteration=3)
    other = make_training()
    assert Checkpointer(*other).load(str(tmp_path / "m.pth"), model_only=True) == {}
    assert equal(training[0], other[0])
    assert not other[1].state and other[2].last_epoch == 0


def test_without_use_latest_the_given_file_is_loaded(rng_seed, tmp_path):
    newest, given, fresh = make_model(), make_model(), make_model()
    Checkpointer(newest, save_dir=str(tmp_path), save_to_disk=True).save("model_final")
    torch.save(given.state_dict(), tmp_path / "given.pth")
    Checkpointer(fresh, save_dir=str(tmp_path)).load(tmp_path / "given.pth", use_latest=False)
    assert equal(fresh, given)


def test_a_foreign_optimizer_state_is_explained(tmp_path):
    model = make_model()
    few_groups = torch.optim.SGD([{"params": [p for p in model.parameters() if p.ndim == d]} for d in (1, 2)], lr=1)
    one_parameter = torch.optim.SGD(list(model.parameters())[:1], lr=1)
    torch.save({"model": model.state_dict(), "optimizer": one_parameter.state_dict()}, tmp_path / "m.pth")
    with pytest.raises(ValueError, match=r"m\.pth.*optimizer does not fit.*remove_solver_states"):
        Checkpointer(model, few_groups).load(tmp_path / "m.pth")


def test_a_write_error_keeps_checkpoint_and_tag(rng_seed, tmp_path, monkeypatch):
    checkpointer = Checkpointer(make_model(), save_dir=str(tmp_path), save_to_disk=True)
    checkpointer.save("model_0000001")
    before = (tmp_path / "model_0000001.pth").read_bytes()

    def disk_full(data, file):
        file.write(b"PK\x03\x04 half of it")
        try:
            raise OSError(28, "No space left on device")
        finally:
            raise RuntimeError("unexpected pos 832 vs 726")  # error of torch's zip writer

    monkeypatch.setattr(torch, "save", disk_full)
    for name in ("model_0000001", "model_0000002"):
        with pytest.raises(OSError, match="No space left"):
            checkpointer.save(name)
    assert sorted(os.listdir(tmp_path)) == ["last_checkpoint", "model_0000001.pth"]
    assert (tmp_path / "model_0000001.pth").read_bytes() == before
    assert checkpointer.get_checkpoint_file() == str(tmp_path / "model_0000001.pth")


@pytest.fixture
def run_folder(tmp_path):
    """Create a folder with checkpoints of iterations 1, 2 and 3; last_checkpoint names the last one."""
    folder = tmp_path / "run"
    folder.mkdir()
    checkpointer = Checkpointer(make_model(), save_dir=str(folder), save_to_disk=True)
    for iteration in (1, 2, 3):
        checkpointer.save(f"model_{iteration:07d}", iteration=iteration)
    return folder


def test_a_moved_folder_is_resumed_from(run_folder, tmp_path):
    moved = tmp_path / "moved"
    shutil.move(run_folder, moved)
    checkpointer = Checkpointer(make_model(), save_dir=str(moved))
    assert checkpointer.get_checkpoint_file() == str(moved / "model_0000003.pth")
    (moved / "last_checkpoint").write_text(r"C:\output\model_0000002.pth")
    assert checkpointer.load() == {"iteration": 2}


@pytest.mark.parametrize("damage", ["missing", "empty", "torn", "zeros"])
def test_an_incomplete_checkpoint_falls_back_to_the_newest_complete_one(run_folder, caplog, damage):
    newest = run_folder / "model_0000003.pth"
    content = newest.read_bytes()
    if damage == "missing":
        newest.unlink()
    else:
        newest.write_bytes({"empty": b"", "torn": content[: len(content) // 2], "zeros": bytes(len(content))}[damage])
    assert Checkpointer(make_model(), save_dir=str(run_folder)).load() == {"iteration": 2}
    assert "falling back to" in caplog.text and "model_0000002.pth" in caplog.text


def test_the_newest_checkpoint_has_the_highest_number(run_folder):
    shutil.copy(run_folder / "model_0000003.pth", run_folder / "model_12345678.pth")
    shutil.copy(run_folder / "model_0000001.pth", run_folder / "model_best.pth")
    (run_folder / "last_checkpoint").write_text("gone.pth")
    chosen = Checkpointer(make_model(), save_dir=str(run_folder)).get_checkpoint_file()
    assert os.path.basename(chosen) == "model_12345678.pth"


def test_no_undamaged_checkpoint_is_an_error(run_folder):
    for path in run_folder.glob("*.pth"):
        path.unlink()
    with pytest.raises(FileNotFoundError, match="remove last_checkpoint to start from the beginning"):
        Checkpointer(make_model(), save_dir=str(run_folder)).load()


def test_a_file_that_is_not_a_checkpoint_is_an_error_that_names_it(tmp_path):
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save({"epoch": 3}, tmp_path / "numbers.pth")
    for name, words in (("list.pth", "holds a list"), ("numbers.pth", "no tensors.*epoch")):
        with pytest.raises(ValueError, match=f"{name}.*{words}"):
            Checkpointer(make_model()).load(tmp_path / name)


def test_subclasses_may_override_reading_and_loading(tmp_path):
    class Own(Checkpointer):
        def _load_file(self, f):
            return {"model": {"weight": torch.full((1, 1), 3.0)}, "iteration": 8}

        def _load_model(self, checkpoint):
            self.model.weight.data = checkpoint.pop("model")["weight"]

    model = torch.nn.Linear(1, 1)
    assert Own(model).load("anything") == {"iteration": 8}
    assert model.weight.item() == 3


DETECTOR = [
    ("backbone.body.stem.stem_1/conv.weight", (4, 3, 3, 3)),
    ("backbone.body.stem.stem_1/norm.weight", (4,)),
    ("backbone.body.stem.stem_1/norm.running_mean", (4,)),
    ("backbone.fpn.fpn_inner1.weight", (8, 4, 1, 1)),
    ("rpn.head.cls_logits.weight", (4, 8, 3, 3)),
    ("rpn.head.centerness.weight", (1, 8, 3, 3)),
]


def with_classes(count):
    return [(key, (count, *shape[1:]) if "cls_logits" in key else shape) for key, shape in DETECTOR]


@pytest.fixture
def cfg():
    return CfgNode({"MODEL": {"BACKBONE": {"CONV_BODY": "V-39-FPN"}}})


def test_detector_loads_a_backbone_alone_and_reports_missing_heads(build_module, random_state, cfg, tmp_path):
    state = random_state(DETECTOR[:3])
    torch.save({key[len("backbone.body.") :]: value for key, value in state.items()}, tmp_path / "imagenet.pth")
    model = build_module(DETECTOR)
    checkpointer = DetectronCheckpointer(cfg, model)
    checkpointer.load(tmp_path / "imagenet.pth")
    assert all(torch.equal(model.state_dict()[key], value) for key, value in state.items())
    assert checkpointer.report.missing == [key for key, _ in DETECTOR[3:]]


def test_detector_refuses_another_backbone_and_is_not_changed(build_module, random_state, cfg, tmp_path):
    torch.save(random_state([("layer1.0.conv1.weight", (4, 3, 3, 3)), *DETECTOR[3:]]), tmp_path / "resnet.pth")
    model = build_module(DETECTOR)
    with pytest.raises(ValueError, match=r"(?s)resnet\.pth: The file does not fit the backbone.*layer1\.0\.conv1"):
        DetectronCheckpointer(cfg, model).load(tmp_path / "resnet.pth")
    assert all(not value.any() for value in model.state_dict().values())
    Checkpointer(model).load(tmp_path / "resnet.pth")  # Checkpointer loads the tensors that match
    assert model.state_dict()["rpn.head.cls_logits.weight"].all()


def test_other_classes_are_an_error_unless_heads_are_skipped(build_module, random_state, cfg, tmp_path, caplog):
    state = random_state(with_classes(80))
    torch.save(state, tmp_path / "coco.pth")
    model = build_module(with_classes(4))
    checkpointer = DetectronCheckpointer(cfg, model)
    with pytest.raises(ValueError, match="trained with 81 classes.*MODEL.FCOS.NUM_CLASSES to 81"):
        checkpointer.load(tmp_path / "coco.pth")
    assert not any(value.any() for value in model.state_dict().values())

    checkpointer.load(tmp_path / "coco.pth", skip_mismatched_heads=True)
    loaded = model.state_dict()
    assert not loaded.pop("rpn.head.cls_logits.weight").any()
    assert all(torch.equal(value, state[key]) for key, value in loaded.items())
    assert caplog.records[-1].levelname == "WARNING" and "file (80, 8, 3, 3), model (4, 8, 3, 3)" in caplog.text


def test_skipping_heads_never_skips_the_backbone_or_a_resumed_file(build_module, random_state, cfg, tmp_path):
    wide = [(key, (16, *shape[1:]) if "fpn" in key else shape) for key, shape in DETECTOR]
    torch.save(random_state(wide), tmp_path / "wide.pth")
    with pytest.raises(ValueError, match="fpn_inner1"):
        DetectronCheckpointer(cfg, build_module(DETECTOR)).load(tmp_path / "wide.pth", skip_mismatched_heads=True)

    DetectronCheckpointer(cfg, build_module(with_classes(80)), save_dir=str(tmp_path), save_to_disk=True).save(
        "model_1"
    )
    resumed = DetectronCheckpointer(cfg, build_module(with_classes(4)), save_dir=str(tmp_path))
    with pytest.raises(ValueError, match="81 classes"):
        resumed.load("x.pth", skip_mismatched_heads=True)


@pytest.mark.parametrize(("convention", "warned"), [("maskrcnn_benchmark", True), ("detectron2", False)])
def test_a_file_of_another_convention_gives_a_warning(build_module, random_state, tmp_path, convention, warned, caplog):
    theirs = [("backbone.bottom_up.x", (2,)), ("roi_heads.box_predictor.cls_score.bias", (5,))]
    torch.save({"model": random_state(theirs), "iteration": 3}, tmp_path / "model_0003.pth")
    cfg = CfgNode({"MODEL": {"BACKBONE": {"CONV_BODY": "V2-39-FPN"}, "CONVENTION": convention}})
    model = build_module([("backbone.body.x", (2,)), ("roi_heads.box.predictor.cls_score.bias", (5,))])
    assert DetectronCheckpointer(cfg, model).load(tmp_path / "model_0003.pth") == {"iteration": 3}
    assert ("results set it to 'detectron2'" in caplog.text) == warned
    assert all(value.any() for value in model.state_dict().values())


def test_safetensors_files_are_read_whatever_their_name(build_module, random_state, cfg, tmp_path):
    state = random_state(DETECTOR)
    write_safetensors(tmp_path / "model.bin", state)
    model = build_module(DETECTOR)
    DetectronCheckpointer(cfg, model).load(tmp_path / "model.bin")
    assert all(torch.equal(model.state_dict()[key], value) for key, value in state.items())


def test_catalog_and_http_names_go_through_the_cache(build_module, random_state, cfg, tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    monkeypatch.setenv("TORCH_MODEL_ZOO", str(tmp_path))
    state = random_state(DETECTOR)
    torch.save(state, tmp_path / "FCOS_V39.pth")
    model = build_module(DETECTOR)
    url = "https://example.org/s/abc/FCOS_V39.pth?dl=1"
    DetectronCheckpointer(cfg, model).load(url)
    assert torch.equal(model.state_dict()[DETECTOR[0][0]], state[DETECTOR[0][0]])
    assert f"url {url} cached in {tmp_path}/FCOS_V39.pth" in caplog.text

    (tmp_path / "R-50.pkl").write_bytes(b"")
    with pytest.raises(ValueError, match=r"R-50\.pkl is not a checkpoint but an empty file"):
        DetectronCheckpointer(cfg, model).load("catalog://ImageNetPretrained/MSRA/R-50")
    assert "catalog://ImageNetPretrained/MSRA/R-50 points to https://" in caplog.text


def test_written_files_are_read_by_our_reader(tmp_path):
    Checkpointer(make_model(), save_dir=str(tmp_path), save_to_disk=True).save("m", iteration=2)
    assert load_pickled(tmp_path / "m.pth")["iteration"] == 2
