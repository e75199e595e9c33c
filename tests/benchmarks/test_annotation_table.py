"""The file that benchmarks/annotation_table.py is run on, and what the script prints."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from maskrcnn_benchmark.data.datasets import COCODataset

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def make_coco_like(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import make_coco_like

    return make_coco_like


def test_the_file_is_like_cocos_and_has_nothing_to_repair(make_coco_like, tmp_path):
    make_coco_like.write(tmp_path, 0.0005, seed=3)
    content = json.loads((tmp_path / "instances.json").read_text())
    assert content.keys() == {"info", "licenses", "images", "annotations", "categories"}
    assert len(content["images"]) == 59 and len(content["annotations"]) == 430 and len(content["categories"]) == 80
    keys = {"segmentation", "area", "iscrowd", "image_id", "bbox", "category_id", "id"}
    assert all(annotation.keys() == keys for annotation in content["annotations"])
    dataset = COCODataset(str(tmp_path / "instances.json"), str(tmp_path / "images"), False)
    assert not dataset.report.findings("repaired"), str(dataset.report)
    assert {finding.what for finding in dataset.report.findings("dropped")} <= {"crowd regions"}
    assert len(make_coco_like.jpeg()) < 1100 and len(dataset[0][1].get_field("masks")) == len(dataset[0][1])
    first = (tmp_path / "instances.json").read_bytes()
    make_coco_like.write(tmp_path, 0.0005, seed=3)
    assert (tmp_path / "instances.json").read_bytes() == first


@pytest.mark.slow
@pytest.mark.parametrize(
    "options, wanted", [(["--repeats", "1"], "| later start |"), (["--formats"], "| .npy files |")]
)
def test_the_script_measures(make_coco_like, tmp_path, options, wanted):
    make_coco_like.write(tmp_path, 0.0005, seed=3)
    command = [sys.executable, str(BENCHMARKS / "annotation_table.py"), str(tmp_path), *options]
    done = subprocess.run(command, text=True, stdout=subprocess.PIPE)
    assert done.returncode == 0 and wanted in done.stdout
    assert list(tmp_path.glob("tables-*")) == []
