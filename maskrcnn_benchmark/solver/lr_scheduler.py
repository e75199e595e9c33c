"""Learning-rate schedules with a warm-up: multi-step, cosine and polynomial decay.

Iterations count from 0: the first optimizer step runs at `last_epoch` 0, and `step()` is called after
`optimizer.step()`. Every learning rate is a closed form of the iteration:

    lr = base_lr * warmup(iteration) * decay(iteration)

So rounding errors do not accumulate, and a resumed run has exactly the learning rates of an uninterrupted one.
"""

from __future__ import annotations

import math
from bisect import bisect_right

from torch.optim.lr_scheduler import LRScheduler


class _WarmupLR(LRScheduler):
    """Base class of the three schedules: the warm-up, and a state that contains only the position.

    Subclasses define `decay(iteration)`, the factor on the base learning rate.

    Args:
        warmup_factor: fraction of the base learning rate at iteration 0.
        warmup_iters: number of warm-up iterations; 0 for none.
        warmup_method: "linear" rises from `warmup_factor` to 1, "constant" stays at `warmup_factor`.
    """

    def __init__(self, optimizer, warmup_factor, warmup_iters, warmup_method, last_epoch):
        if warmup_method not in ("constant", "linear"):
            raise ValueError(f"Only 'constant' or 'linear' warmup_method accepted, got {warmup_method!r}")
        self.warmup_factor = warmup_factor
        self.warmup_iters = warmup_iters
        self.warmup_method = warmup_method
        super().__init__(optimizer, last_epoch)

    def warmup(self, iteration: int) -> float:
        if iteration >= self.warmup_iters:
            return 1
        if self.warmup_method == "constant":
            return self.warmup_factor
        alpha = iteration / self.warmup_iters
        return self.warmup_factor * (1 - alpha) + alpha

    def get_lr(self) -> list[float]:
        warmup, decay = self.warmup(self.last_epoch), self.decay(self.last_epoch)
        return [base_lr * warmup * decay for base_lr in self.base_lrs]

    def state_dict(self) -> dict:
        """Return only the position. The shape of the schedule comes from the config."""
        return {"last_epoch": self.last_epoch, "_step_count": self._step_count}

    def load_state_dict(self, state_dict: dict) -> None:
        """Set the position, and the optimizer's learning rates for it.

        Everything else in the state is ignored (the forks also saved milestones, gamma and one base rate per
        parameter). A schedule changed in the config takes effect when resuming, and the forks' list of base rates does
        not match our parameter groups. Load the optimizer's state before this one.
        """
        if "last_epoch" not in state_dict:
            raise KeyError(f"not the state of a scheduler: 'last_epoch' is missing, found {sorted(state_dict)}")
        self.last_epoch = int(state_dict["last_epoch"])
        self._step_count = int(state_dict.get("_step_count", self.last_epoch + 1))
        self._last_lr = self.get_lr()
        for group, base_lr, lr in zip(self.optimizer.param_groups, self.base_lrs, self._last_lr, strict=True):
            group["initial_lr"] = base_lr
            group["lr"] = lr


class WarmupMultiStepLR(_WarmupLR):
    """Step decay by the factor `gamma` at each of the `milestones` (Goyal et al., 2017; defaults of the forks)."""

    def __init__(
        self,
        optimizer,
        milestones,
        gamma=0.1,
        warmup_factor=1.0 / 3,
        warmup_iters=500,
        warmup_method="linear",
        last_epoch=-1,
    ):
        if list(milestones) != sorted(milestones):
            raise ValueError(f"Milestones should be a list of increasing integers. Got {list(milestones)}")
        self.milestones = list(milestones)
        self.gamma = gamma
        super().__init__(optimizer, warmup_factor, warmup_iters, warmup_method, last_epoch)

    def decay(self, iteration: int) -> float:
        return self.gamma ** bisect_right(self.milestones, iteration)


class WarmupCosineLR(_WarmupLR):
    """Half a cosine from the base learning rate to 0 at `max_iters` (Loshchilov & Hutter, ICLR 2017, no restarts)."""

    def __init__(
        self, optimizer, max_iters, warmup_factor=1.0 / 3, warmup_iters=500, warmup_method="linear", last_epoch=-1
    ):
        self.max_iters = max_iters
        super().__init__(optimizer, warmup_factor, warmup_iters, warmup_method, last_epoch)

    def decay(self, iteration: int) -> float:
        return 0.5 * (1 + math.cos(math.pi * min(iteration / self.max_iters, 1.0)))


class WarmupPolyLR(_WarmupLR):
    """Polynomial decay: (1 - iteration / max_iters) ** power (Chen et al., DeepLab, 2017)."""

    def __init__(
        self,
        optimizer,
        max_iters,
        power=0.9,
        warmup_factor=1.0 / 3,
        warmup_iters=500,
        warmup_method="linear",
        last_epoch=-1,
    ):
        self.max_iters = max_iters
        self.power = power
        super().__init__(optimizer, warmup_factor, warmup_iters, warmup_method, last_epoch)

    def decay(self, iteration: int) -> float:
        return (1 - min(iteration / self.max_iters, 1.0)) ** self.power
