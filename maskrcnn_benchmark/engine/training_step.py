"""Forward, backward and update of one training iteration."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping

import torch

from maskrcnn_benchmark.fast.for_training import for_training
from maskrcnn_benchmark.utils.comm import get_world_size, reduce_dict


class TrainingStep:
    """Compute gradients over micro-batches and update the weights.

    Args:
        model: (ImageList, BoxLists) -> dict of scalar losses; may be wrapped in DistributedDataParallel.
        dtype: of mixed precision (torch.amp); float16 scales the loss.
        clip_gradients: largest L2 norm of all gradients together; 0 for no clipping.

    Attributes:
        scaler: torch.amp.GradScaler; passes its calls through unless `dtype` is float16. After an overflow of float16
            gradients it skips the update and lowers its scale, which is no error.
        own_losses: the losses of this process by micro-batch, of the last `accumulate`.
    """

    def __init__(self, model, optimizer, device: torch.device, dtype: torch.dtype, clip_gradients: float):
        self.model = for_training(model)
        self.optimizer = optimizer
        self.device = device
        self.dtype = dtype
        self.clip_gradients = clip_gradients
        self.scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)
        self.own_losses: list[dict[str, torch.Tensor]] = []
        self._granted: dict[str, bool] = {}

    def accumulate(self, micro_batches: list, requests: Mapping[str, bool] | None = None) -> dict[str, float]:
        """Add up the gradients of the mean loss of the micro-batches.

        Args:
            requests: wishes of this process, the same names on every process. They travel with the losses, so they
                cost no message of their own; `granted` reads them afterwards.

        Returns:
            Every loss, averaged over micro-batches and processes. A value that is not finite on one process is not
            finite on any.
        """
        self.optimizer.zero_grad()
        self.own_losses = []
        requests = requests or {}
        for part, (images, targets, _) in enumerate(micro_batches, start=1):
            is_last = part == len(micro_batches)
            with contextlib.nullcontext() if is_last else self._without_gradient_exchange():
                images = images.to(self.device, non_blocking=True)
                targets = [target.to(self.device, non_blocking=True) for target in targets]
                with self._autocast():
                    losses = self.model(images, targets)
                self.own_losses.append({name: value.detach() for name, value in losses.items()})
                if is_last:
                    # Started before the backward pass: the host then waits for the forward pass only, while the GPU
                    # continues.
                    read = _start_reading(*_exchange(_mean(self.own_losses), requests))
                self.scaler.scale(sum(losses.values()) / len(micro_batches)).backward()
        averaged, self._granted = read()
        return averaged

    def granted(self, name: str, own: bool) -> bool:
        """Return whether any process made the request `name` in the last `accumulate`; the same on every process.

        Args:
            own: this process's request now, which decides if it is the only process.
        """
        return bool(own) if get_world_size() == 1 else self._granted[name]

    def update(self) -> None:
        """Clip the gradients if asked to, and let the optimizer take its step."""
        if self.clip_gradients > 0:
            self.scaler.unscale_(self.optimizer)
            parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
            torch.nn.utils.clip_grad_norm_(parameters, self.clip_gradients)
        self.scaler.step(self.optimizer)
        self.scaler.update()

    def _autocast(self):
        if self.dtype == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)

    def _without_gradient_exchange(self):
        """Skip DistributedDataParallel's exchange of gradients, except in the last of several backward passes."""
        return self.model.no_sync() if hasattr(self.model, "no_sync") else contextlib.nullcontext()


def reduce_loss_dict(loss_dict: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Average every loss over the processes; see `reduce_dict` for the order of its keys."""
    return reduce_dict(loss_dict)


def _exchange(losses: dict[str, torch.Tensor], requests: Mapping[str, bool]) -> tuple[dict, list[str]]:
    """Average losses over the processes, together with the requests as zeros and ones under their names."""
    if get_world_size() == 1:
        return reduce_loss_dict(losses), []
    if not requests.keys().isdisjoint(losses):
        raise ValueError(f"losses and requests share a name: {sorted(requests.keys() & losses.keys())}")
    like = next(iter(losses.values()))
    return reduce_loss_dict({**losses, **{name: like.new_full((), float(on)) for name, on in requests.items()}}), [
        *requests
    ]


def _mean(dicts: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    return {name: sum(each[name].float() for each in dicts) / len(dicts) for name in dicts[0]}


def _start_reading(values: dict[str, torch.Tensor], requests: list[str]) -> Callable[[], tuple[dict, dict]]:
    """Begin to copy scalar tensors to the host.

    Returns:
        A function that waits for the copy and returns the losses and, apart from them, the requests.
    """
    stacked = torch.stack(list(values.values()))
    copied = None
    if stacked.is_cuda:
        stacked = stacked.to("cpu", non_blocking=True)
        copied = torch.cuda.Event()
        copied.record()

    def read():
        if copied is not None:
            copied.synchronize()
        numbers = dict(zip(values, stacked.tolist(), strict=True))
        granted = {name: numbers.pop(name) > 0 for name in requests}
        return numbers, granted

    return read
