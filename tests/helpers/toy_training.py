"""Detector and data small enough to train in milliseconds, for the trainer's tests; also a script."""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import sys

import numpy as np
import torch
from torch import nn

from maskrcnn_benchmark.checkpoint.checkpointer import Checkpointer
from maskrcnn_benchmark.config import cfg as defaults
from maskrcnn_benchmark.engine.trainer import do_train
from maskrcnn_benchmark.engine.training_options import TrainingOptions
from maskrcnn_benchmark.solver import WarmupMultiStepLR, make_optimizer
from maskrcnn_benchmark.structures.bounding_box import BoxList
from maskrcnn_benchmark.structures.image_list import to_image_list
from maskrcnn_benchmark.utils.comm import get_rank, get_world_size, is_main_process
from maskrcnn_benchmark.utils.miscellaneous import mkdir

SIZE = 8


class ToyDetector(nn.Module):
    """Detector with two losses that depend on every parameter, and with `noisy` on every random number generator."""

    def __init__(self, noisy: bool = False):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.out = nn.Conv2d(4, 1, 1)
        self.noisy = noisy

    def forward(self, images, targets=None):
        maps = self.out(torch.relu(self.norm(self.conv(images.tensors)))).mean(dim=(1, 2, 3))
        if not self.training:
            return [BoxList(torch.zeros(0, 4), (SIZE, SIZE)) for _ in images.image_sizes]
        wanted = torch.stack([target.bbox.sum() / (SIZE * SIZE) for target in targets])
        if self.noisy:
            wanted = wanted + random.random() + np.random.rand() + torch.rand(()).item()
        return {"loss_b": (maps - wanted).abs().mean(), "loss_a": 0.5 * (maps - wanted).square().mean()}


def without_batch_statistics(noisy: bool = False) -> ToyDetector:
    """Return a detector whose gradient of a batch is the mean of the gradients of the batch's parts."""
    model = ToyDetector(noisy)
    model.norm = nn.GroupNorm(2, 4)
    return model


class ToyDataset(torch.utils.data.Dataset):
    """Images that depend only on their index. Every third has no objects, and those in `bad` are NaN."""

    def __init__(self, length: int, bad=()):
        self.length = length
        self.bad = bad

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        numbers = torch.Generator().manual_seed(index)
        image = torch.rand(3, SIZE, SIZE, generator=numbers)
        if index in self.bad:
            image[:] = torch.nan
        boxes = torch.rand(0 if index % 3 == 0 else 2, 4, generator=numbers) * SIZE
        target = BoxList(boxes, (SIZE, SIZE))
        target.add_field("labels", torch.ones(len(boxes), dtype=torch.int64))
        return image, target, index

    def image_id(self, index):
        return 1000 + index


class ToyLoader:
    """Loader of micro-batches of 2 images. Batch k does not depend on the start or the accumulation."""

    def __init__(self, max_iter: int, start_iter: int = 0, accumulation_steps: int = 1, bad=()):
        self.dataset = ToyDataset(2 * max_iter * accumulation_steps * get_world_size(), bad)
        self.batches = range(max_iter * accumulation_steps)
        self.start = start_iter * accumulation_steps

    def __len__(self):
        return len(self.batches)

    def __iter__(self):
        torch.rand(())  # as torch's DataLoader does when it draws a base seed
        return self._micro_batches()

    def _micro_batches(self):
        for batch in self.batches[self.start :]:
            first = 2 * (batch * get_world_size() + get_rank())
            images, targets, indices = zip(*(self.dataset[first + k] for k in range(2)), strict=True)
            yield to_image_list(list(images)), targets, indices


def optimizer_config(lr):
    cfg = defaults.clone()
    cfg.merge_from_list(["SOLVER.BASE_LR", lr, "SOLVER.WEIGHT_DECAY", 1e-4])
    return cfg


def train(
    folder,
    max_iter=10,
    *,
    period=1000,
    noisy=False,
    lr=0.05,
    bad=(),
    wrap=lambda model: model,
    accumulation_steps=1,
    build=ToyDetector,
    after_forward=None,
    **options,
):
    """Train or resume in `folder` like tools/train_net.py; return the model."""
    if folder:
        mkdir(str(folder))
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)
    model = build(noisy)
    optimizer = make_optimizer(optimizer_config(lr), model)
    scheduler = WarmupMultiStepLR(optimizer, [max_iter * 2 // 3], warmup_iters=3)
    checkpointer = Checkpointer(model, optimizer, scheduler, str(folder), is_main_process())
    arguments = {"iteration": 0} | checkpointer.load()
    loader = ToyLoader(max_iter, arguments["iteration"], accumulation_steps, bad)
    if after_forward is not None:
        model.register_forward_hook(after_forward)
    do_train(
        wrap(model),
        loader,
        optimizer,
        scheduler,
        checkpointer,
        "cpu",
        period,
        arguments,
        options=TrainingOptions(accumulation_steps=accumulation_steps, **options),
    )
    return model


def signal_self_at(call: int, number: int):
    """Return a forward hook that sends the process a signal at its call number `call`."""
    calls = itertools.count(1)

    def count(_module, _inputs, _output):
        if next(calls) == call:
            os.kill(os.getpid(), number)

    return count


if __name__ == "__main__":
    settings = json.loads(sys.argv[2])
    train(sys.argv[1], after_forward=signal_self_at(settings.pop("kill_at"), signal.SIGKILL), **settings)
