import json

import pytest
from helpers.tiny_data import write_images
from helpers.tiny_models import tiny_cfg, tiny_model

from maskrcnn_benchmark.engine.testing import make_test_loaders, run_test

CASES = {"mask": ("segm", "AP"), "rpn": ("box_proposal", "AR@100")}


@pytest.mark.parametrize("name", CASES)
def test_expected_results_are_compared_with_mask_and_proposal_metrics(name, tmp_path, caplog, rng_seed):
    task, metric = CASES[name]
    opts = ["DATASETS.TEST", [write_images(tmp_path)], "OUTPUT_DIR", str(tmp_path), "INPUT.MIN_SIZE_TEST", 64]
    cfg = tiny_cfg(name, *opts)
    model, loaders = tiny_model(cfg), make_test_loaders(cfg)
    plain = run_test(cfg, model, loaders)
    value = plain.figures[f"test/{task}/{metric}"]
    assert plain.as_expected and 0 <= value < 1
    for mean, met in ((value, True), (value + 0.1, False)):
        cfg.merge_from_list(["TEST.EXPECTED_RESULTS", [[task, metric, [mean, 0.01]]]])
        assert run_test(cfg, model, loaders).as_expected == met
        assert run_test(cfg, model, loaders, check_expected=False).as_expected
    assert f"FAIL: {task} > {metric}" in caplog.text
    folder = tmp_path / "inference" / "test"
    written = {"mask": {"bbox.json", "segm.json", "coco_results.pth", "coco_results.json"}}
    written["rpn"] = {"box_proposals.pth", "box_proposals.json"}
    assert {path.name for path in folder.iterdir()} == written[name] | {"predictions.pth"}
    record = json.loads((folder / f"{'coco_results' if name == 'mask' else 'box_proposals'}.json").read_text())
    assert record["results"][task][metric] == value
