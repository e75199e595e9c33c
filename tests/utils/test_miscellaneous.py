import json
from types import SimpleNamespace

from maskrcnn_benchmark.config import cfg
from maskrcnn_benchmark.utils.miscellaneous import mkdir, save_config, save_labels


def test_mkdir_creates_parents_and_accepts_existing_folders(tmp_path):
    for _ in range(2):
        mkdir(str(tmp_path / "a" / "b"))
    mkdir("")
    assert (tmp_path / "a" / "b").is_dir()


def test_saved_config_merges_back(tmp_path):
    changed = cfg.clone()
    changed.SOLVER.MAX_ITER = 7
    save_config(changed, str(tmp_path / "config.yml"))
    again = cfg.clone()
    again.merge_from_file(str(tmp_path / "config.yml"))
    assert again == changed


def test_labels_are_found_in_datasets_and_wrappers(tmp_path):
    inner = SimpleNamespace(categories={3: "bee", 90: "drone"})
    joined = SimpleNamespace(datasets=[inner, inner])
    save_labels([SimpleNamespace(dataset=joined)], str(tmp_path))
    assert json.loads((tmp_path / "labels.json").read_text()) == {"3": "bee", "90": "drone"}


def test_dataset_without_categories_warns_and_writes_no_file(tmp_path, caplog):
    save_labels([SimpleNamespace()], str(tmp_path))
    assert "no categories" in caplog.text
    assert list(tmp_path.iterdir()) == []
