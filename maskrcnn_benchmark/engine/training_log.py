"""Log a training: log lines in the forks' format, metrics file, progress bar."""

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
    """Log and metrics file of a training, written on rank 0.

    The log gets the first iteration of a run, every LOG_PERIOD-th and the last. The metrics file gets every
    LOG_PERIOD-th and the last.

    It is a context manager: entering starts the clock, leaving closes the files and the progress bar.

    Args:
        start: iterations done before this run.
        max_iter: iterations of the whole training.
        device: device whose peak memory is logged.
        output_dir: folder of metrics.json and TensorBoard events; "" writes neither.
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
        """Record the time until the data of the iteration was loaded."""
        self.data_time = time.perf_counter() - self.iteration_began

    def add(self, iteration: int, losses: dict[str, float], lr: float) -> None:
        """Add the losses of a finished iteration, and log if an entry is due."""
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
        """Log the metrics of a test during training."""
        logger.info(validation_line(iteration, figures))
        if self.metrics is not None:
            self.metrics.write(iteration, figures)

    def iteration_ends(self) -> None:
        """Start the clock of the next iteration, so that the time of tests and checkpoints is not counted."""
        self.iteration_began = time.perf_counter()

    def finish(self) -> None:
        """Log how long this run took."""
        total = self.iteration_began - self.began
        per_iteration = total / (self.max_iter - self.start)
        logger.info("Total training time: %s (%.4f s / it)", datetime.timedelta(seconds=total), per_iteration)


def training_line(iteration: int, max_iter: int, meters: MetricLogger, lr: float, max_mem: float) -> str:
    """Format the forks' log line plus a field `done`: fields "name: median (global average)", separated by two spaces.

    `time` and `data` are in seconds, `max mem` in MiB. Scripts of the forks' users parse these fields, so units are not
    printed.
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
    """Format the metrics of a test during training."""
    fields = [f"iter: {iteration}", *(f"{name}: {value:.4f}" for name, value in figures.items())]
    return "[Validation]: " + "  ".join(fields)


def peak_memory(device: torch.device) -> float:
    """Return the peak memory in MiB: of tensors on a GPU, of this process's resident memory on the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    try:
        import resource
    except ModuleNotFoundError:  # not Unix
        return 0.0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10  # bytes there, KiB elsewhere
