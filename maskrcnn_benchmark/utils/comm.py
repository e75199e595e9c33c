"""Communication between the processes of a distributed run.

Without an initialized process group there is one process: rank 0 of 1, and no communication.
Pickled objects and small tensors on the CPU are sent over gloo, so that they need no GPU memory.
"""

from __future__ import annotations

import torch
import torch.distributed as dist

from maskrcnn_benchmark.forks import is_pytorch_1_1_0_or_later  # noqa: F401


def _initialized() -> bool:
    return dist.is_available() and dist.is_initialized()


def get_world_size() -> int:
    return dist.get_world_size() if _initialized() else 1


def get_rank() -> int:
    return dist.get_rank() if _initialized() else 0


def is_main_process() -> bool:
    return get_rank() == 0


def synchronize() -> None:
    """Wait until all processes have reached this call."""
    if get_world_size() > 1:
        dist.barrier()


def unwrapped(model: torch.nn.Module) -> torch.nn.Module:
    """Return the model inside DistributedDataParallel, or a wrapper like it, or else the model itself."""
    return getattr(model, "module", model)


def all_gather(data) -> list:
    """Return the `data` (anything that pickles) of every process, by rank, on every process."""
    if get_world_size() == 1:
        return [data]
    gathered = [None] * get_world_size()
    dist.all_gather_object(gathered, data)
    return gathered


def gather(data) -> list | None:
    """Return the `data` (anything that pickles) of every process, by rank, on rank 0; None on the others."""
    if get_world_size() == 1:
        return [data]
    gathered = [None] * get_world_size() if is_main_process() else None
    dist.gather_object(data, gathered, dst=0)
    return gathered


def all_reduce_sum(tensor: torch.Tensor) -> torch.Tensor:
    """Sum a tensor of the same shape over the processes, and return it on every process; without a gradient.

    With one process the result is `tensor` itself, otherwise a new one.
    """
    if get_world_size() == 1:
        return tensor
    total = tensor.detach().clone()
    dist.all_reduce(total)
    return total


def reduce_dict(input_dict: dict[str, torch.Tensor], average: bool = True) -> dict[str, torch.Tensor]:
    """Sum or average a dict of scalar tensors over the processes, which must all have the same keys.

    With more than one process the result is valid on all of them, and its keys are sorted by name. (They are summed in
    that order, whatever order each process built its dict in.) With one process it is `input_dict` itself.
    """
    world_size = get_world_size()
    if world_size == 1 or not input_dict:
        return input_dict
    names = sorted(input_dict)
    total = all_reduce_sum(torch.stack([input_dict[name].detach() for name in names]))
    if average:
        total /= world_size
    return dict(zip(names, total.unbind(), strict=True))


def broadcast_buffers(module: torch.nn.Module) -> None:
    """Copy the buffers of rank 0 to every process (running statistics of batch norms differ between processes)."""
    if get_world_size() == 1:
        return
    for buffer in module.buffers():
        dist.broadcast(buffer, src=0)
