"""Predictions of many images, which are large pickles, are read."""

import pytest
import torch

from maskrcnn_benchmark.checkpoint import pickle_bounds
from maskrcnn_benchmark.checkpoint.safe_unpickle import load_pickled
from maskrcnn_benchmark.evaluation.predictions import load_predictions, save_predictions
from maskrcnn_benchmark.structures.bounding_box import BoxList


def test_the_limit_of_operations_grows_with_files_of_objects(tmp_path, monkeypatch):
    boxes = BoxList(torch.rand(2, 4), (640, 480))
    boxes.add_field("scores", torch.rand(2))
    boxes.add_field("labels", torch.ones(2, dtype=torch.int64))
    path = tmp_path / "predictions.pth"
    save_predictions([boxes] * 300, path)
    monkeypatch.setattr(pickle_bounds, "MOST_OPERATIONS", 1000)  # has the same effect as many more images
    assert len(load_predictions(path)) == 300
    torch.save([[] for _ in range(5000)], path)
    with pytest.raises(ValueError, match="more than .* operations"):
        load_pickled(path)
