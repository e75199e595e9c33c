"""PATHS_CATALOG of another project: never executed."""

import pytest

from maskrcnn_benchmark.config import cfg


def test_a_foreign_catalog_is_refused_with_the_blocks_to_write(tree, write, tmp_path):
    flag = tmp_path / "ran"
    catalog = write(
        f"""
open({str(flag)!r}, 'w')
class DatasetCatalog:
    DATA_DIR = "/data"
    DATASETS = {{
        "coco_bees_train": {{"img_dir": "bees/train", "ann_file": "bees/train.json"}},
        "voc_bees": {{"data_dir": "bees", "split": "val"}},
        "coco_" + "made": {{}},
    }}
""",
        "my_catalog.py",
    )
    sets = "TRAIN: [coco_bees_train, coco_2014_val], TEST: [voc_bees, what]"
    path = write(f"PATHS_CATALOG: {catalog}\nDATASETS: {{{sets}}}")
    with pytest.raises(ValueError) as raised:
        tree.merge_from_file(path)
    text = str(raised.value)
    assert "not executed" in text and str(catalog) in text
    assert "{NAME: coco_bees_train, FORMAT: coco, IMAGES: /data/bees/train, ANNOTATIONS: /data/bees/train.json}" in text
    assert "- coco_2014_val\n" in text and "not in COCO format" in text and "# what" in text
    assert not flag.exists()
    block = write(text[text.index("DATASETS:") : text.index("  TEST:")], "block.yaml")
    tree.merge_from_file(block)
    assert [entry if isinstance(entry, str) else entry["NAME"] for entry in tree.DATASETS.TRAIN] == [
        "coco_bees_train",
        "coco_2014_val",
    ]


@pytest.mark.parametrize("catalog", ["missing.py", "/etc/hostname"])
def test_a_foreign_catalog_that_cannot_be_read_gets_an_example(tree, catalog):
    with pytest.raises(ValueError, match="FORMAT: coco, IMAGES: folder"):
        tree.merge_from_list(["PATHS_CATALOG", catalog])


@pytest.mark.parametrize("package", ["maskrcnn_benchmark", "fcos_core"])
def test_the_default_catalog_of_another_checkout_is_the_default(tree, package):
    tree.merge_from_list(["PATHS_CATALOG", f"/elsewhere/{package}/config/paths_catalog.py"])
    assert tree.PATHS_CATALOG == cfg.PATHS_CATALOG
