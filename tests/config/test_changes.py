from maskrcnn_benchmark.config import cfg as defaults
from maskrcnn_benchmark.config.changes import changes


def test_changes_merged_into_the_defaults_give_the_configuration():
    cfg = defaults.clone()
    cfg.merge_from_list(["MODEL.FCOS.NUM_CLASSES", 11, "INPUT.MIN_SIZE_TRAIN", (128, 160), "DTYPE", "bfloat16"])
    found = changes(cfg, defaults)
    assert found == {
        "MODEL": {"FCOS": {"NUM_CLASSES": 11}},
        "INPUT": {"MIN_SIZE_TRAIN": [128, 160]},
        "DTYPE": "bfloat16",
    }
    merged = defaults.clone()
    merged.merge_from_other_cfg(found)
    assert merged == cfg


def test_the_same_configuration_has_no_changes():
    assert changes(defaults.clone(), defaults) == {}
