"""Train and test one step with every file of configs/cityscapes, with a small body on a small tree."""

from pathlib import Path

import pytest
from helpers import tiny_models
from helpers.cityscapes_tree import write_tree

from maskrcnn_benchmark.config import cfg as defaults
from maskrcnn_benchmark.config import check_values
from maskrcnn_benchmark.data import check_label_spaces, make_data_loader, resolve_num_classes
from maskrcnn_benchmark.engine.testing import make_test_loaders, run_test
from maskrcnn_benchmark.modeling.detector import build_detection_model
from tools.cityscapes.convert_cityscapes_to_coco import convert

FOLDER = Path(__file__).resolve().parents[2] / "configs" / "cityscapes"
SMALL = (
    "MODEL.WEIGHT '' INPUT.MIN_SIZE_TRAIN [64] INPUT.MAX_SIZE_TRAIN 96 INPUT.MIN_SIZE_TEST 64 INPUT.MAX_SIZE_TEST 96 "
    "SOLVER.IMS_PER_BATCH 2 SOLVER.MAX_ITER 1 TEST.IMS_PER_BATCH 2 MODEL.ROI_MASK_HEAD.CONV_LAYERS [32]"
)


@pytest.mark.parametrize("name", sorted(path.name for path in FOLDER.glob("*.yaml")))
def test_config_trains_and_is_tested(name, tmp_path, rng_seed):
    tree = write_tree(tmp_path / "cityscapes")
    convert(str(tree), str(tree / "annotations"))
    cfg = defaults.clone()
    cfg.merge_from_file(str(FOLDER / name))
    cfg.merge_from_list([*tiny_models.BODY.split(), "MODEL.BACKBONE.CONV_BODY", "V-27-FPN", *SMALL.split()])
    cfg.merge_from_list(["DATASETS.ROOT", str(tmp_path), "OUTPUT_DIR", str(tmp_path / "out")])
    check_values(cfg)
    train_loader, test_loaders = make_data_loader(cfg), make_test_loaders(cfg)
    class_names = train_loader.dataset.class_names
    resolve_num_classes(cfg, class_names)
    check_label_spaces(class_names, {name: loader.dataset.class_names for name, loader in test_loaders.items()})

    model = build_detection_model(cfg)
    ((images, targets, _),) = train_loader
    losses = model(images, list(targets))
    assert ("loss_mask" in losses) == cfg.MODEL.MASK_ON and all(loss.isfinite() for loss in losses.values())
    figures = run_test(cfg, model.eval(), test_loaders).figures
    assert set(figures) >= {f"{cfg.DATASETS.TEST[0]}/{task}/AP" for task in ("bbox", "segm")[: 1 + cfg.MODEL.MASK_ON]}
