"""Write small files to the output folder of a run."""

from __future__ import annotations

import json
import logging
import os

from .comm import is_main_process


def mkdir(path: str) -> None:
    """Create the folder and its parents; "" is the working directory and needs nothing."""
    if path:
        os.makedirs(path, exist_ok=True)


def save_config(cfg, path: str) -> None:
    """Write the merged config as YAML (rank 0)."""
    if is_main_process():
        with open(path, "w") as f:
            f.write(cfg.dump())


def save_labels(dataset_list: list, output_dir: str) -> None:
    """Write OUTPUT_DIR/labels.json, which maps the dataset's own category ids (as strings) to names (rank 0).

    Args:
        dataset_list: datasets with the same label space. The first one that has `categories` (id -> name) is used. It
            is also searched for inside wrappers (`dataset`, and the first of `datasets`).
    """
    if not is_main_process():
        return
    logger = logging.getLogger(__name__)
    for dataset in dataset_list:
        categories = _categories(dataset)
        if categories is not None:
            path = os.path.join(output_dir, "labels.json")
            logger.info("Saving labels mapping into %s", path)
            with open(path, "w") as f:
                json.dump({str(key): name for key, name in categories.items()}, f, indent=2)
            return
    kinds = ", ".join(type(dataset).__name__ for dataset in dataset_list)
    logger.warning("Dataset [%s] has no categories attribute, labels.json file won't be created", kinds)


def _categories(dataset) -> dict | None:
    while not hasattr(dataset, "categories"):
        if hasattr(dataset, "datasets"):
            dataset = dataset.datasets[0]
        elif hasattr(dataset, "dataset"):
            dataset = dataset.dataset
        else:
            return None
    return dataset.categories
