"""Measure wall time."""

from __future__ import annotations

import datetime
import time


class Timer:
    """Stopwatch that sums the time between `tic()` and `toc()`, in seconds."""

    def __init__(self):
        self.reset()

    def reset(self) -> None:
        self.total_time = 0.0
        self.calls = 0
        self.start_time = 0.0
        self.diff = 0.0

    @property
    def average_time(self) -> float:
        return self.total_time / self.calls if self.calls else 0.0

    def tic(self) -> None:
        self.start_time = time.perf_counter()

    def toc(self, average: bool = True) -> float:
        """End a measurement; return the mean of all so far, or with `average=False` this one."""
        self.add(time.perf_counter() - self.start_time)
        return self.average_time if average else self.diff

    def add(self, time_diff: float) -> None:
        """Add a measurement taken elsewhere."""
        self.diff = time_diff
        self.total_time += time_diff
        self.calls += 1

    @property
    def avg_time_str(self) -> str:
        return get_time_str(self.average_time)


def get_time_str(seconds: float) -> str:
    """Format seconds as H:MM:SS.ffffff."""
    return str(datetime.timedelta(seconds=seconds))
