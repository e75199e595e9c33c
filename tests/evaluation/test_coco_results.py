import io
import logging
import pickle
import types

import pytest
import torch

from maskrcnn_benchmark.checkpoint.safe_unpickle import load_pickled
from maskrcnn_benchmark.evaluation.coco_results import COCOResults, check_expected_results, compare_with_expected


def _summarized(iou_type, stats):
    return types.SimpleNamespace(params=types.SimpleNamespace(iouType=iou_type), stats=stats)


def test_figures_are_initially_not_computed():
    results = COCOResults("bbox", "keypoints").results
    assert list(results) == ["bbox", "keypoints"]
    assert list(results["bbox"]) == ["AP", "AP50", "AP75", "APs", "APm", "APl"]
    assert list(results["keypoints"]) == ["AP", "AP50", "AP75", "APm", "APl"]
    assert all(value == -1 for task in results.values() for value in task.values())


def test_proposal_metrics_are_named_like_the_forks():
    names = list(COCOResults("box_proposal").results["box_proposal"])
    assert names == ["AR@100", "ARs@100", "ARm@100", "ARl@100", "AR@1000", "ARs@1000", "ARm@1000", "ARl@1000"]


def test_update_copies_the_leading_figures_of_the_summary():
    results = COCOResults("bbox", "segm")
    results.update(_summarized("bbox", [k / 10 for k in range(12)]))
    results.update(None)
    assert list(results.results["bbox"].values()) == [0.0, 0.1, 0.2, 0.3, 0.4, 0.5]
    assert results.results["segm"]["AP"] == -1


def test_text_form_of_the_forks():
    results = COCOResults("bbox")
    results.update(_summarized("bbox", [0.5, 0.75, 1, 0, -1, 0.123456]))
    assert repr(results) == (
        "\nTask: bbox\nAP, AP50, AP75, APs, APm, APl\n0.5000, 0.7500, 1.0000, 0.0000, -1.0000, 0.1235\n"
    )


def test_unknown_task_is_named():
    with pytest.raises(ValueError, match="boxes.*bbox"):
        COCOResults("boxes")


def test_files_of_the_forks_and_ours_are_read(tmp_path):
    results = COCOResults("bbox")
    results.results["bbox"]["AP"] = 0.25
    torch.save(results, tmp_path / "ours.pth")
    # a file of the forks references another module
    buffer = io.BytesIO()
    pickle.dump(results, buffer, protocol=2)
    old_module = "maskrcnn_benchmark.data.datasets.evaluation.coco.coco_eval"
    (tmp_path / "old.pkl").write_bytes(
        buffer.getvalue().replace(b"cmaskrcnn_benchmark.evaluation.coco_results\n", f"c{old_module}\n".encode())
    )
    for name, module in (("ours.pth", COCOResults.__module__), ("old.pkl", old_module)):
        loaded = load_pickled(tmp_path / name, allow={(module, "COCOResults"): COCOResults})
        assert loaded.results == results.results
    with open(tmp_path / "old.pkl", "rb") as file:  # as in old scripts
        assert pickle.load(file).results == results.results


def test_expected_results_lines(caplog):
    results = COCOResults("bbox")
    results.results["bbox"].update(AP=0.375, AP50=0.5)
    expected = [["bbox", "AP", [0.38, 0.002]], ["bbox", "AP50", [0.6, 0.01]]]
    with caplog.at_level(logging.INFO, logger="maskrcnn_benchmark.inference"):
        assert check_expected_results(results, expected, 4) is False
    passed, failed = caplog.records
    assert passed.levelno == logging.INFO and failed.levelno == logging.ERROR
    assert passed.getMessage() == (
        "PASS: bbox > AP sanity check (actual vs. expected): 0.375 vs. mean=0.3800, std=0.002, range=(0.3720, 0.3880)"
    )
    assert failed.getMessage() == (
        "FAIL: bbox > AP50 sanity check (actual vs. expected): 0.500 vs. mean=0.6000, std=0.010, range=(0.5600, 0.6400)"
    )


def test_all_expected_results_pass():
    results = COCOResults("bbox")
    results.results["bbox"]["AP"] = 0.5
    assert check_expected_results(results, [("bbox", "AP", (0.5, 0.0))], 4)
    assert check_expected_results(results, (), 4)


def test_expected_figure_that_was_not_measured_fails():
    ((passed, line),) = compare_with_expected(COCOResults("bbox"), [["segm", "AP", [0.3, 0.1]]], 4)
    assert not passed and line.startswith("FAIL: segm > AP") and "not measured" in line


@pytest.mark.parametrize("entry", [["bbox", "AP", 0.3], ["bbox", "AP"], 3, ["bbox", "AP", ["high", 0.1]]])
def test_malformed_expectation_is_shown(entry):
    with pytest.raises(ValueError, match=r"TEST.EXPECTED_RESULTS.*\[task, metric, \[mean, std\]\]"):
        compare_with_expected(COCOResults("bbox"), [entry], 4)
