import json

import numpy as np
import pytest
import torch
from helpers.tiny_models import tiny_cfg, tiny_model
from PIL import Image

from maskrcnn_benchmark.checkpoint.checkpointer import write_checkpoint
from maskrcnn_benchmark.engine.predictor import Predictor


@pytest.mark.slow
def test_predictor_is_a_class_for_map_batches(tmp_path):
    ray = pytest.importorskip("ray", reason="needs the extra 'ray'")
    torch.manual_seed(0)
    cfg = tiny_cfg("mask", "INPUT.MIN_SIZE_TEST", 64, "INPUT.MAX_SIZE_TEST", 96)
    weights = str(tmp_path / "model_final.pth")
    write_checkpoint(weights, {"model": tiny_model(cfg).state_dict(), "config": cfg.dump(), "class_names": ["a", "b"]})
    paths = [str(tmp_path / f"{number}.png") for number in range(12)]
    for number, path in enumerate(paths[:-1]):  # the last one is missing
        noise = np.random.default_rng(number).integers(0, 256, (64, 90, 3), dtype=np.uint8)
        Image.fromarray(noise).save(path)
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        table = ray.data.from_items([{"path": path} for path in paths])
        found = table.map_batches(
            Predictor, fn_constructor_kwargs={"weights": weights}, concurrency=2, batch_size=4
        ).take_all()
    finally:
        ray.shutdown()
    lines = {row["path"]: json.loads(row["prediction"]) for row in found}
    assert sorted(lines) == sorted(paths)
    assert "error" in lines[paths[-1]]
    predictor = Predictor.from_checkpoint(weights)
    for path in paths[:-1]:
        expected = predictor(path)
        assert len(lines[path]["objects"]) == len(expected) > 0
        assert lines[path]["objects"][0]["score"] == pytest.approx(float(expected.scores[0]), abs=1e-5)
