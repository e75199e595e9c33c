import json
from types import SimpleNamespace

from maskrcnn_benchmark.config import cfg
from maskrcnn_benchmark.utils.miscellaneous import mkdir, save_config, save_labels


def test_mkdir_makes_parents_and_accepts_what_is_there(tmp_path):
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


def test_labels_are_named_by_the_ids_of_the_data_set_also_inside_wrappers(tmp_path):
    inner = SimpleNamespace(categories={3: "bee", 90: "drone"})
    joined = SimpleNamespace(datasets=[inner, inner])
    save_labels([SimpleNamespace(dataset=joined)], str(tmp_path))
    assert json.loads((tmp_path / "labels.json").read_text()) == {"3": "bee", "90": "drone"}


def test_data_set_without_categories_gives_a_warning_and_no_file(tmp_path, caplog):
    save_labels([SimpleNamespace()], str(tmp_path))
    assert "no categories" in caplog.text
    assert list(tmp_path.iterdir()) == []
