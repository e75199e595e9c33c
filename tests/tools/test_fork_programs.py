"""Programs of the forks run unedited: tests/helpers/fork_programs.py has their calls."""

import json
import logging
import re
import sys

import pytest
import torch
import yaml
from conftest import ROOT
from helpers import fork_programs

from maskrcnn_benchmark.config import cfg as global_cfg
from maskrcnn_benchmark.engine.inference import compute_on_dataset, inference

LOSSES = r"(loss(_\w+)?: \d+\.\d{4} \(\d+\.\d{4}\)  )+"


@pytest.fixture
def program(project):
    """The project of tests/tools with a complete config. Global config and loggers are restored afterwards."""
    project.config["MODEL"]["FCOS"] |= {"NUM_CLASSES": 3, "INFERENCE_TH": 0.001}
    project.config["SOLVER"] |= {"MAX_ITER": 4, "CHECKPOINT_PERIOD": 2}
    project.config["OUTPUT_DIR"] = str(project.folder / "out")
    before = global_cfg.clone()
    yield project
    global_cfg.defrost()
    global_cfg.clear()
    global_cfg.update(before)
    for name in ("maskrcnn_benchmark", "fcos_core"):
        for handler in list(logging.getLogger(name).handlers):
            logging.getLogger(name).removeHandler(handler)
            handler.close()


@pytest.fixture
def apex(tmp_path, monkeypatch):
    """Install the apex stub of docs/migration.md, as a user would."""
    page = (ROOT / "docs" / "migration.md").read_text()
    (stub,) = re.findall(r"```python\n(# apex/amp\.py.*?)```", page, re.DOTALL)
    folder = tmp_path / "stub" / "apex"
    folder.mkdir(parents=True)
    (folder / "__init__.py").touch()
    (folder / "amp.py").write_text(stub)
    monkeypatch.syspath_prepend(str(folder.parent))
    yield
    for name in [name for name in sys.modules if name.split(".")[0] == "apex"]:
        del sys.modules[name]


def config_file(program):
    path = program.folder / "config.yaml"
    path.write_text(yaml.safe_dump(program.config))
    return path


def log_of(program):
    return (program.folder / "out" / "log.txt").read_text()


def again(program):
    """Reset the global config as in a new process; return the config file."""
    global_cfg.defrost()
    return config_file(program)


def test_newest_program_trains_validates_resumes_and_tests(program, apex):
    program.config["SOLVER"]["TEST_PERIOD"] = 2
    fork_programs.train_newest(config_file(program), [])
    log = log_of(program)
    assert "maskrcnn_benchmark.trainer INFO: Start training\n" in log
    lines = re.findall(r"\[Validation\]:   eta: 0:\d\d:\d\d  iter: (\d)  " + LOSSES + r"lr: \d\.\d{6}\n", log)
    assert [line[0] for line in lines] == ["2", "4"]
    assert log.count("Start evaluation on [Validation] dataset(5 images).") == 2
    assert not (program.folder / "out" / "inference").exists()
    for name in ("config.yml", "model_0000002.pth", "model_final.pth", "last_checkpoint"):
        assert (program.folder / "out" / name).exists()

    results = fork_programs.test("maskrcnn_benchmark", again(program), [], newest=True)
    ((figures, rows),) = results
    assert 0 <= figures.results["bbox"]["AP"] <= 1
    assert rows["bbox"]
    assert json.loads((program.folder / "out/inference/set0/bbox.json").read_text())

    program.config["SOLVER"]["MAX_ITER"] = 6
    fork_programs.train_newest(again(program), [])
    assert torch.load(program.folder / "out" / "model_final.pth", weights_only=True)["iteration"] == 6
    assert "Start training at iteration 4 of 6" in log_of(program)


@pytest.mark.parametrize("package", ["maskrcnn_benchmark", "fcos_core"])
def test_older_program_trains_and_tests(program, package):
    program.config["SOLVER"] |= {"ACCUMULATION_STEPS": 2}
    fork_programs.train_older(package, config_file(program), [])
    log = log_of(program)
    assert f"{package}.trainer INFO: Start training\n" in log
    assert re.search(rf"{package}\.trainer INFO: eta: 0:00:00  iter: 4\S*  " + LOSSES, log)
    assert f"{package}.utils.checkpoint INFO: Saving checkpoint to " in log
    checkpoint = program.folder / "out" / "model_final.pth"
    assert torch.load(checkpoint, weights_only=True)["iteration"] == 4

    ((figures, _),) = fork_programs.test(package, again(program), [], ckpt=str(checkpoint))
    assert 0 <= figures.results["bbox"]["AP"] <= 1


def test_bbox_aug_of_the_global_cfg(program, apex):
    program.config["TEST"] |= {"BBOX_AUG": {"ENABLED": True, "H_FLIP": True, "SCALES": [96], "MAX_SIZE": 96}}
    path = config_file(program)
    ((figures, rows),) = fork_programs.test("maskrcnn_benchmark", path, ["MODEL.WEIGHT", ""], newest=True)
    assert rows["bbox"]

    get = fork_programs.Names("maskrcnn_benchmark")
    model, _ = fork_programs.build(get, global_cfg)
    (loader,) = get("data", "make_data_loader")(global_cfg, is_train=False)
    wrapped = get("engine.bbox_aug", "make_bbox_aug")(global_cfg, model)
    expected = compute_on_dataset(wrapped, loader, "cpu")
    # bbox_aug by name, by position as in upstream's newest signature, and from the cfg as in the older ones
    for found in (
        compute_on_dataset(model, loader, "cpu", bbox_aug=True),
        compute_on_dataset(model, loader, "cpu", True, None),
        compute_on_dataset(model, loader, "cpu"),
    ):
        assert all(torch.equal(found[index].bbox, expected[index].bbox) for index in expected)
    images, _, indices = next(iter(loader))
    with torch.no_grad():
        direct = get("engine.bbox_aug", "im_detect_bbox_aug")(model.eval(), images, torch.device("cpu"))
    assert torch.equal(direct[0].bbox, expected[indices[0]].bbox)

    result = inference(model, loader, "again", ("bbox",), False, True, "cpu", (), 4, None)
    assert len(result[1]["bbox"]) == len(rows["bbox"])
    with pytest.raises(ValueError, match="bbox_aug is False, but the loader was made with TEST.BBOX_AUG.ENABLED True"):
        inference(model, loader, "again", bbox_aug=False, device="cpu")
    global_cfg.defrost()
    global_cfg.TEST.BBOX_AUG.ENABLED = False
    with pytest.raises(ValueError, match="TEST.BBOX_AUG.ENABLED is False in maskrcnn_benchmark.config.cfg"):
        inference(model, loader, "again", bbox_aug=True, device="cpu")
    (resized,) = get("data", "make_data_loader")(global_cfg, is_train=False)
    global_cfg.TEST.BBOX_AUG.ENABLED = True
    with pytest.raises(ValueError, match="images that are already resized"):
        inference(model, resized, "again", bbox_aug=True, device="cpu")
