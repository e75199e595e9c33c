"""tools/check_dataset.py: exit statuses, text and JSON."""

import json
from pathlib import Path

import pytest
import torch
from helpers.warm_start import ROOT, Script

from maskrcnn_benchmark.checkpoint.safetensors_file import read_safetensors
from maskrcnn_benchmark.checkpoint.shipped import shipped_model
from maskrcnn_benchmark.config import cfg as default_cfg
from maskrcnn_benchmark.data.sample import sample_image


@pytest.fixture
def check(project):
    def run(*arguments):
        return Script([ROOT / "tools" / "check_dataset.py", *arguments], project.folder).wait()

    return run


def test_a_config_is_checked_with_all_its_datasets(project, check):
    words = project.words("check_dataset.py")
    done = check(words[2], "--json", "found.json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "train (train): 12 images" in done.stdout and "test (test): 5 images" in done.stdout
    found = json.loads((project.folder / "found.json").read_text())
    assert [split["name"] for split in found["splits"]] == ["train", "test"] and found["counts"]["error"] == 0
    assert {"check", "severity", "title", "splits", "count", "examples", "remedy"} == set(found["findings"][0])


def test_statuses_of_errors_and_of_warnings(project, check):
    (project.folder / "train" / "1.png").write_bytes(b"")
    done = check("train.json", "--images", "train", "--json", "-")
    found = json.loads(done.stdout)
    assert done.returncode == 1 and found["counts"]["error"] == 1
    assert found["findings"][0]["examples"][0]["image_id"] == 1

    data = json.loads((project.folder / "test.json").read_text())
    data["annotations"][0]["bbox"][2] = 0
    (project.folder / "test.json").write_text(json.dumps(data))
    assert check("test.json", "--images", "test").returncode == 0
    assert check("test.json", "--images", "test", "--strict").returncode == 1


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["no.yaml"], "no.yaml"),
        (["no.json"], "annotation file no.json does not exist"),
        (["train.json", "--images", "nowhere"], "image folder nowhere does not exist"),
        (["config.yaml", "--images", "train"], "--images belongs to an annotation file"),
        (["config.yaml", "MODEL.NO_SUCH", "1"], "NO_SUCH"),
        (["config.yaml", "DATASETS.TRAIN", "()", "DATASETS.TEST", "()"], "both empty"),
    ],
)
def test_wrong_commands_have_status_2(project, check, arguments, message):
    project.words("check_dataset.py")
    done = check(*arguments)
    assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr


def test_failures_of_the_doctor_have_status_3(project, check):
    done = check("train.json", "--images", "train", "--json", "train/1.png/found.json")
    assert done.returncode == 3 and "error: " in done.stderr


def test_the_page_and_the_duplicates_can_be_asked_for(project, check):
    (project.folder / "train" / "2.png").write_bytes((project.folder / "train" / "1.png").read_bytes())
    done = check("train.json", "--images", "train", "--html", "report.html")
    assert done.returncode == 0 and "nearly the same as an earlier one" in done.stdout
    assert "nearly the same as an earlier one" in (project.folder / "report.html").read_text()
    assert "nearly the same" not in check("train.json", "--images", "train", "--no-duplicates").stdout


def test_a_clean_copy_is_written_to_a_new_folder(project, check):
    data = json.loads((project.folder / "train.json").read_text())
    data["annotations"][0]["bbox"][2] = 0
    (project.folder / "train.json").write_text(json.dumps(data))
    done = check("train.json", "--images", "train", "--fix", "clean")
    assert "1 change, listed in changes.csv" in done.stdout and "FORMAT: coco" in done.stdout
    done = check("clean/train.json", "--images", "train", "--no-duplicates", "--json", "-")
    assert not [each for each in json.loads(done.stdout)["findings"] if "without area" in each["title"]]
    done = check("train.json", "--images", "train", "--fix", "clean")
    assert done.returncode == 2 and "give a new folder" in done.stderr


def test_weights_that_do_not_exist_are_refused(project, check):
    done = check("train.json", "--images", "train", "--weights", "none.pth")
    assert done.returncode == 2 and "--weights none.pth does not exist" in done.stderr


def test_a_model_looks_for_mistakes(project, check):
    """The shipped model of digits, written as tools/train_net.py writes checkpoints."""
    model = shipped_model("digits_fcos")
    cfg = default_cfg.clone()
    cfg.merge_from_other_cfg(model.config)
    weights = {"model": read_safetensors(model.path), "config": cfg.dump(), "class_names": list(model.class_names)}
    torch.save(weights, project.folder / "model_final.pth")
    content = json.loads(Path(sample_image()).with_suffix(".json").read_text())
    content["annotations"].pop()
    (project.folder / "digits.json").write_text(json.dumps(content))
    folder = Path(sample_image()).parent
    done = check("digits.json", "--images", folder, "--weights", "model_final.pth", "--no-duplicates")
    assert done.returncode == 0 and "without a box according to the model" in done.stdout, done.stderr

    done = check("train.json", "--images", "train", "--weights", "model_final.pth", "--no-duplicates")
    assert done.returncode == 2 and "has none of the classes of train" in done.stderr
    (project.folder / "empty.pth").write_bytes(b"")
    done = check("digits.json", "--images", folder, "--weights", "empty.pth")
    assert done.returncode == 2 and "error: " in done.stderr and "Traceback" not in done.stderr


def test_weights_without_class_names_have_those_of_the_config_s_dataset(project, check):
    """A state dict alone, as other programs write it, beside a config whose number of classes comes from the data."""
    model = shipped_model("digits_fcos")
    torch.save(read_safetensors(model.path), project.folder / "foreign.pth")
    content = json.loads(Path(sample_image()).with_suffix(".json").read_text())
    content["annotations"].pop()
    (project.folder / "digits.json").write_text(json.dumps(content))
    cfg = default_cfg.clone()
    cfg.merge_from_other_cfg(model.config)
    cfg.MODEL.FCOS.NUM_CLASSES = -1
    images = str(Path(sample_image()).parent)
    cfg.DATASETS.TRAIN = [{"NAME": "digits", "FORMAT": "coco", "IMAGES": images, "ANNOTATIONS": "digits.json"}]
    cfg.DATASETS.TEST = []
    (project.folder / "digits.yaml").write_text(cfg.dump())
    done = check("digits.yaml", "--weights", "foreign.pth", "--no-duplicates", "--json", "-", "MODEL.DEVICE", "cpu")
    assert done.returncode == 0, done.stderr
    checks = {each["check"]: each for each in json.loads(done.stdout)["findings"]}
    assert checks["missing-box"]["count"] == 1 and "label-mistake" not in checks


def test_names_that_no_encoding_has_are_written_as_escapes(project, check):
    data = json.loads((project.folder / "train.json").read_text())
    data["categories"][0]["name"] = "\ud800"
    (project.folder / "train.json").write_text(json.dumps(data))
    done = check("train.json", "--images", "train", "--html", "report.html", "--fix", "clean")
    assert done.returncode == 0 and "\\ud800" in done.stdout, done.stderr
    assert "\\ud800" in (project.folder / "report.html").read_text()
