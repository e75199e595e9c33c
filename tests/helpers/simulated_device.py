"""A simulated GPU that counts how often the host would wait for it.

Its tensors report the device "meta", for which torch takes the same code paths as for a GPU, but compute on the CPU.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import torch
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_flatten, tree_map

DEVICE = torch.device("meta")
MODELING = Path(__file__).resolve().parents[2] / "maskrcnn_benchmark" / "modeling"
aten = torch.ops.aten
# Operations after which the host reads results, or the sizes of results.
READ_BY_THE_HOST = {
    "_local_scalar_dense", "is_nonzero", "equal", "nonzero", "masked_select", "bincount", "unique_dim", "_unique",
    "_unique2", "unique_consecutive", "repeat_interleave", "nms",
}  # fmt: skip
INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_"}


class SimulatedTensor(torch.Tensor):
    """A tensor on the simulated device; `data_on_host` contains its values."""

    @staticmethod
    def __new__(cls, data_on_host):
        return torch.Tensor._make_wrapper_subclass(
            cls,
            data_on_host.size(),
            strides=data_on_host.stride(),
            storage_offset=data_on_host.storage_offset(),
            dtype=data_on_host.dtype,
            device=DEVICE,
        )

    def __init__(self, data_on_host):
        self.data_on_host = data_on_host

    __torch_function__ = torch._C._disabled_torch_function_impl

    def tolist(self):
        return self.cpu().tolist()  # torch's own method refuses subclasses

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        raise RuntimeError(f"{function} of a tensor on the simulated device, outside of `with SimulatedDevice()`")


class SimulatedDevice(TorchDispatchMode):
    """Context in which device="meta" is the simulated device.

    Attributes:
        waits: counts (operation, place in the package) for every operation that would make the host wait for a GPU.
    """

    def __init__(self):
        super().__init__()
        self.waits: Counter = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        tensors = [value for value in tree_flatten((args, kwargs))[0] if isinstance(value, torch.Tensor)]
        name = function._schema.name.split("::")[1]
        # torch.tensor(numbers, device="meta") discards the numbers, and some versions of torch do not dispatch it here.
        if any(map(is_without_numbers, tensors)):
            self.waits["numbers", place()] += 1
        there = any(value.device.type == DEVICE.type for value in tensors)
        target = kwargs.get("device")
        goes_there = there if target is None else torch.device(target).type == DEVICE.type
        if not there and not goes_there:
            return function(*args, **kwargs)
        if waits(name, function, args, kwargs, tensors, there, goes_there):
            self.waits[name, place()] += 1
        if target is not None:
            kwargs = kwargs | {"device": torch.device("cpu")}
        if name == "_to_copy":
            kwargs.pop("non_blocking", None)
        args_on_host, kwargs_on_host = tree_map(on_host, (args, kwargs))
        result = function(*args_on_host, **kwargs_on_host)
        if not goes_there:
            return result
        result = tree_map(lambda x: SimulatedTensor(x) if isinstance(x, torch.Tensor) else x, result)
        return return_and_correct_aliasing(function, args, kwargs, result) if there else result


def waits(name, function, args, kwargs, tensors, there, goes_there) -> bool:
    if name in READ_BY_THE_HOST:
        return True
    if name == "_to_copy" and there != goes_there:
        return not (goes_there and kwargs.get("non_blocking"))
    if name == "copy_" and len({isinstance(value, SimulatedTensor) for value in tensors}) == 2:
        return not (args[2] if len(args) > 2 else kwargs.get("non_blocking", False))
    if name in INDEXING:
        indices = [index for index in args[1] if index is not None]
        masks = (torch.bool, torch.uint8)
        return any(index.dtype in masks or not isinstance(index, SimulatedTensor) for index in indices)
    return False


def is_without_numbers(value) -> bool:
    is_there = isinstance(value, torch.Tensor) and value.device.type == DEVICE.type
    return is_there and not isinstance(value, SimulatedTensor)


def on_host(value):
    if is_without_numbers(value):
        return torch.zeros(value.shape, dtype=value.dtype)
    return value.data_on_host if isinstance(value, SimulatedTensor) else value


def place() -> str:
    """Return the innermost running function of modeling, as "file.py function"; "elsewhere" if there is none."""
    frame = sys._getframe()
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if path.is_relative_to(MODELING) and path.name != "host_waits.py":
            return f"{path.relative_to(MODELING).as_posix()} {frame.f_code.co_name}"
        frame = frame.f_back
    return "elsewhere"


def move_there(module: torch.nn.Module) -> torch.nn.Module:
    """Return the module with its parameters and buffers on the simulated device."""
    for part in module.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None:
                there = SimulatedTensor(parameter.detach())
                part._parameters[name] = there.requires_grad_(parameter.requires_grad)
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = SimulatedTensor(buffer)
    return module
