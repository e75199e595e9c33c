"""Smooth values for the log."""

from __future__ import annotations

from collections import defaultdict, deque
from statistics import median_low

import torch


class SmoothedValue:
    """A series of numbers: exact count and sum of all of it, median and mean of the last `window_size`."""

    def __init__(self, window_size: int = 20):
        self.deque: deque[float] = deque(maxlen=window_size)
        self.total = 0.0
        self.count = 0

    def update(self, value: float) -> None:
        self.deque.append(value)
        self.count += 1
        self.total += value

    @property
    def median(self) -> float:
        """Return the window's median; for an even number the lower of the two middle values."""
        return median_low(self.deque)

    @property
    def avg(self) -> float:
        """Return the mean of the window."""
        return sum(self.deque) / len(self.deque)

    @property
    def global_avg(self) -> float:
        """Return the mean of all values."""
        return self.total / self.count


class MetricLogger:
    """Named `SmoothedValue`s in the order of their first update; `str()` is "name: median (global average)" of each."""

    def __init__(self, delimiter: str = "\t"):
        self.meters: dict[str, SmoothedValue] = defaultdict(SmoothedValue)
        self.delimiter = delimiter

    def update(self, **values: float | torch.Tensor) -> None:
        """Add numbers, or tensors of one element."""
        for name, value in values.items():
            if isinstance(value, torch.Tensor):
                value = value.item()
            if not isinstance(value, (float, int)):
                raise TypeError(
                    f"metric {name!r} is a {type(value).__name__}; expected a number or a one-element tensor"
                )
            self.meters[name].update(value)

    def __getattr__(self, name: str) -> SmoothedValue:
        meters = self.__dict__.get("meters", {})
        if name in meters:
            return meters[name]
        raise AttributeError(f"{type(self).__name__!r} object has no attribute or meter {name!r}")

    def __str__(self) -> str:
        lines = (f"{name}: {meter.median:.4f} ({meter.global_avg:.4f})" for name, meter in self.meters.items())
        return self.delimiter.join(lines)
