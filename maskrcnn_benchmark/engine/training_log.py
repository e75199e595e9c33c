"""Report a training: log lines in the forks' format, metrics file, progress bar."""

from __future__ import annotations

import datetime
import logging
import sys
import time

import torch

from maskrcnn_benchmark.engine.metrics_file import MetricsFile
from maskrcnn_benchmark.engine.progress import ProgressBar
from maskrcnn_benchmark.utils.comm import is_main_process
from maskrcnn_benchmark.utils.metric_logger import MetricLogger

LOG_PERIOD = 20

logger = logging.getLogger("maskrcnn_benchmark.trainer")


class TrainingLog:
    """Collect the figures of every iteration and report them, on rank 0.

    The first iteration of a run, every LOG_PERIOD-th and the last are logged. The metrics file gets every
    LOG_PERIOD-th and the last.

    Args:
        start: iterations done before this run.
        max_iter: iterations of the whole training.
        device: whose memory is reported.
        output_dir: folder of metrics.json and TensorBoard's events; "" writes neither.

    As a context manager it starts the clock, and closes its files and the progress bar, also after an error.
    """

    def __init__(self, start: int, max_iter: int, device: torch.device, output_dir: str):
        self.start = start
        self.max_iter = max_iter
        self.device = device
        self.meters = MetricLogger(delimiter="  ")
        self.metrics = MetricsFile(output_dir, start) if output_dir and is_main_process() else None
        self.progress = ProgressBar(max_iter, start, enabled=is_main_process())

    def __enter__(self) -> TrainingLog:
        self.began = self.iteration_began = time.perf_counter()
        return self

    def __exit__(self, *_error) -> None:
        self.progress.close()
        if self.metrics is not None:
            self.metrics.close()

    def loaded(self) -> None:
        """Note that the data of the iteration have arrived."""
        self.data_time = time.perf_counter() - self.iteration_began

    def add(self, iteration: int, losses: dict[str, float], lr: float) -> None:
        """Add the figures of a finished iteration and report them if it is time."""
        self.meters.update(loss=sum(losses.values()), **losses)
        self.meters.update(time=time.perf_counter() - self.iteration_began, data=self.data_time)
        self.progress.advance(loss=f"{self.meters.loss.median:.4f}")
        due = iteration % LOG_PERIOD == 0 or iteration == self.max_iter
        if due or iteration == self.start + 1:
            figures = {"lr": lr, "max_mem": peak_memory(self.device)}
            with self.progress.hidden():
                logger.info(training_line(iteration, self.max_iter, self.meters, **figures))
            if due and self.metrics is not None:
                medians = {name: meter.median for name, meter in self.meters.meters.items()}
                self.metrics.write(iteration, medians | figures)

    def add_test(self, iteration: int, figures: dict[str, float]) -> None:
        """Report the figures of a test during training."""
        logger.info(validation_line(iteration, figures))
        if self.metrics is not None:
            self.metrics.write(iteration, figures)

    def iteration_ends(self) -> None:
        """Start the clock of the next iteration; tests and checkpoints count as none of its time."""
        self.iteration_began = time.perf_counter()

    def finish(self) -> None:
        """Log how long this run took."""
        total = self.iteration_began - self.began
        per_iteration = total / (self.max_iter - self.start)
        logger.info("Total training time: %s (%.4f s / it)", datetime.timedelta(seconds=total), per_iteration)


def training_line(iteration: int, max_iter: int, meters: MetricLogger, lr: float, max_mem: float) -> str:
    """Format the forks' line, and a field `done` behind it: two spaces between fields, "name: median (global average)".

    `time` and `data` are seconds, `max mem` is MiB. The forks' scripts read these fields, so none gets a unit.
    """
    eta = datetime.timedelta(seconds=int(meters.time.global_avg * (max_iter - iteration)))
    return meters.delimiter.join(
        [
            f"eta: {eta}",
            f"iter: {iteration}",
            str(meters),
            f"lr: {lr:.6f}",
            f"max mem: {max_mem:.0f}",
            f"done: {iteration}/{max_iter}",
        ]
    )


def validation_line(iteration: int, figures: dict[str, float]) -> str:
    """Format the figures of a test during training."""
    fields = [f"iter: {iteration}", *(f"{name}: {value:.4f}" for name, value in figures.items())]
    return "[Validation]: " + "  ".join(fields)


def peak_memory(device: torch.device) -> float:
    """Return a peak in MiB: of the tensors on a GPU, of this process's resident memory on the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    try:
        import resource
    except ModuleNotFoundError:  # not a Unix
        return 0.0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10  # bytes there, KiB elsewhere
