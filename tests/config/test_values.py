from maskrcnn_benchmark.config import cfg


def test_expected_results_of_a_file_can_be_replaced(tmp_path):
    tree = cfg.clone()
    (tmp_path / "base.yaml").write_text("TEST: {EXPECTED_RESULTS: [[bbox, AP, [0.1, 0.01]]]}")
    (tmp_path / "top.yaml").write_text("_BASE_: base.yaml\nTEST: {EXPECTED_RESULTS: [[segm, AP50, [0.2, 0]]]}")
    tree.merge_from_file(str(tmp_path / "top.yaml"))
    assert tree.TEST.EXPECTED_RESULTS == [["segm", "AP50", [0.2, 0]]]
    tree.merge_from_list(["TEST.EXPECTED_RESULTS", "[['bbox', 'AP', [0.3, 0.1]], ['segm', 'AP', [0.2, 0]]]"])
    assert tree.TEST.EXPECTED_RESULTS == [["bbox", "AP", [0.3, 0.1]], ["segm", "AP", [0.2, 0]]]
    tree.merge_from_list(["TEST.EXPECTED_RESULTS", []])
    assert tree.TEST.EXPECTED_RESULTS == []
