"""Small datasets, and their diagnoses."""

import numpy as np
import pytest
from helpers.clinic import Clinic, block

from maskrcnn_benchmark.config import cfg as default_cfg
from maskrcnn_benchmark.doctor.examine import examine, read_splits


@pytest.fixture
def rng(rng_seed):
    return np.random.default_rng(rng_seed)


@pytest.fixture
def clinic(tmp_path):
    return Clinic(tmp_path)


@pytest.fixture
def two_splits(tmp_path):
    """Return (training folder, test folder, examine): the latter takes KEY, VALUE, ... of a config with both."""
    train, test = Clinic(tmp_path / "a"), Clinic(tmp_path / "b")

    def run(*options):
        cfg = default_cfg.clone()
        cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = (block(train, "bees_train"),), (block(test, "bees_val"),)
        cfg.merge_from_list(list(options))
        return examine(cfg, read_splits(cfg), "bees.yaml")

    return train, test, run
