"""Run a function in several processes joined by gloo, as torchrun would."""

from __future__ import annotations

import os
import tempfile

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from helpers.warm_start import start_server
from maskrcnn_benchmark.engine import process
from maskrcnn_benchmark.engine.launch import leave_processes


def run(count: int, function, *args) -> list:
    """Run `function(*args)` in `count` new processes, and return the results by rank.

    The function must be in a module that can be imported by name (test files cannot).
    """
    with tempfile.TemporaryDirectory() as folder:
        start_server()
        mp.start_processes(_work, (count, folder, function, args), nprocs=count, start_method="forkserver")
        return [torch.load(os.path.join(folder, f"{rank}.pth"), weights_only=False) for rank in range(count)]


def _work(rank, count, folder, function, args):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=count)
    result = function(*args)
    dist.barrier()
    leave_processes()
    torch.save(result, os.path.join(folder, f"{rank}.pth"))
    process.end()
