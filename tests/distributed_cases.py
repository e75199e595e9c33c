"""What the tests of several processes run in each of them."""

from __future__ import annotations

import torch
from torch.nn.parallel import DistributedDataParallel
from toy_training import ToyDetector, ToyLoader, train, without_batch_statistics

from maskrcnn_benchmark.engine.inference import compute_on_dataset, gather_predictions
from maskrcnn_benchmark.utils import comm


def talk():
    """Everything in utils.comm once."""
    rank = comm.get_rank()
    buffers = torch.nn.BatchNorm1d(2)
    buffers.running_mean += rank + 1
    comm.broadcast_buffers(buffers)
    mine = torch.tensor([1.0 + rank])
    losses = {"b": torch.tensor(1.0 + rank), "a": torch.tensor(10.0 * rank)}
    comm.synchronize()
    return {
        "world_size": comm.get_world_size(),
        "main": comm.is_main_process(),
        "all_gather": comm.all_gather({"rank": rank, "text": "x" * (rank + 1)}),
        "gather": comm.gather(rank),
        "all_reduce_sum": comm.all_reduce_sum(mine),
        "unchanged": mine,
        "mean": list(comm.reduce_dict(losses).items()),
        "sum": comm.reduce_dict(losses, average=False),
        "running_mean": buffers.running_mean,
    }


def train_toy(folder, options):
    """Weights after training in as many processes as there are; an error comes back as its text."""
    try:
        model = train(folder, build=without_batch_statistics, wrap=DistributedDataParallel, **options)
    except FloatingPointError as error:
        return str(error)
    return model.state_dict()


def predict_toy(skip):
    """Predictions of all processes, without those of the pictures in `skip`."""
    loader = ToyLoader(3)
    predictions = compute_on_dataset(ToyDetector(), loader, "cpu")
    kept = {index: prediction for index, prediction in predictions.items() if index not in skip}
    return gather_predictions(kept, len(loader.dataset))
