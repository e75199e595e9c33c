"""Forward pass, backward pass and update of one training iteration."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping

import torch

from maskrcnn_benchmark.fast.for_training import for_training
from maskrcnn_benchmark.utils.comm import get_world_size, reduce_dict
from maskrcnn_benchmark.utils.compute_dtype import autocast


class TrainingStep:
    """Gradient accumulation over micro-batches, and the update of the weights.

    Args:
        model: (ImageList, BoxLists) -> dict of scalar losses; may be wrapped in DistributedDataParallel.
        optimizer: optimizer of the model's parameters.
        device: device of the model.
        dtype: dtype of mixed precision (torch.amp); float16 scales the loss.
        clip_gradients: largest L2 norm of all gradients together; 0 disables clipping.

    Attributes:
        scaler: torch.amp.GradScaler, disabled unless `dtype` is float16. If float16 gradients overflow, it skips the
            update and lowers its scale, which is not an error.
        own_losses: losses of this process in the last `accumulate`, one dict per micro-batch.
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
        """Accumulate the gradients of the mean loss of the micro-batches.

        Args:
            micro_batches: batches (ImageList, BoxLists, dataset indices).
            requests: flags of this process, with the same names on every process. They are reduced together with the
                losses, which saves a collective. `granted` reads the results.

        Returns:
            Losses averaged over micro-batches and processes. A loss that is non-finite on one process is non-finite on
            all.
        """
        self.optimizer.zero_grad()
        self.own_losses = []
        requests = requests or {}
        for part, (images, targets, _) in enumerate(micro_batches, start=1):
            is_last = part == len(micro_batches)
            with contextlib.nullcontext() if is_last else self._without_gradient_exchange():
                images = images.to(self.device, non_blocking=True)
                targets = [target.to(self.device, non_blocking=True) for target in targets]
                with autocast(self.device, self.dtype):
                    losses = self.model(images, targets)
                self.own_losses.append({name: value.detach() for name, value in losses.items()})
                if is_last:
                    # The copy starts before the backward pass, so the host waits only for the forward pass while the
                    # GPU continues.
                    read = _start_reading(*_exchange(_mean(self.own_losses), requests))
                self.scaler.scale(sum(losses.values()) / len(micro_batches)).backward()
        averaged, self._granted = read()
        return averaged

    def granted(self, name: str, own: bool) -> bool:
        """Return whether any process set the request `name` in the last `accumulate`. All processes agree on it.

        Args:
            name: name of the request.
            own: current value on this process, which is returned if there is only one process.
        """
        return bool(own) if get_world_size() == 1 else self._granted[name]

    def update(self) -> None:
        """Clip the gradients if clipping is enabled, and step the optimizer."""
        if self.clip_gradients > 0:
            self.scaler.unscale_(self.optimizer)
            parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
            torch.nn.utils.clip_grad_norm_(parameters, self.clip_gradients)
        self.scaler.step(self.optimizer)
        self.scaler.update()

    def _without_gradient_exchange(self):
        """Return a context that skips DistributedDataParallel's gradient all-reduce (`no_sync`)."""
        return self.model.no_sync() if hasattr(self.model, "no_sync") else contextlib.nullcontext()


def reduce_loss_dict(loss_dict: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Average every loss over the processes; see `reduce_dict` for the order of the keys."""
    return reduce_dict(loss_dict)


def _exchange(losses: dict[str, torch.Tensor], requests: Mapping[str, bool]) -> tuple[dict, list[str]]:
    """Average the losses over the processes, with the requests as additional entries of 0 or 1."""
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
    """Start copying scalar tensors to the host.

    Returns:
        Function that waits for the copy and returns two dicts, the losses and the requests.
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
