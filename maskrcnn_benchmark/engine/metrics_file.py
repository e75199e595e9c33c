"""Write the metrics of a training to metrics.json (one JSON object per line) and to TensorBoard."""

from __future__ import annotations

import importlib.util
import json
import logging
import os

from maskrcnn_benchmark.utils.atomic_write import atomic_write

FILE_NAME = "metrics.json"
TENSORBOARD_FOLDER = "tensorboard"


class MetricsFile:
    """Writer of OUTPUT_DIR/metrics.json, and of TensorBoard events if `tensorboard` is installed.

    Args:
        output_dir: existing folder.
        iteration: iteration from which the training continues. Lines of later iterations are removed, and TensorBoard
            hides them: an earlier run wrote them after its last checkpoint, and this run writes them again.
    """

    def __init__(self, output_dir: str, iteration: int):
        path = os.path.join(output_dir, FILE_NAME)
        _drop_lines_after(path, iteration)
        self._file = open(path, "a", buffering=1, encoding="utf-8")
        self._tensorboard = None
        if importlib.util.find_spec("tensorboard") is None:
            logging.getLogger(__name__).info(
                "The package tensorboard is not installed: metrics go to %s only (pip install tensorboard)", path
            )
        else:
            from torch.utils.tensorboard import SummaryWriter

            folder = os.path.join(output_dir, TENSORBOARD_FOLDER)
            self._tensorboard = SummaryWriter(folder, purge_step=iteration + 1)

    def write(self, iteration: int, figures: dict[str, float]) -> None:
        self._file.write(json.dumps({"iteration": iteration, **figures}) + "\n")
        if self._tensorboard is not None:
            for name, value in figures.items():
                self._tensorboard.add_scalar(name, value, iteration)

    def close(self) -> None:
        self._file.close()
        if self._tensorboard is not None:
            self._tensorboard.close()


def read_metrics(path: str) -> list[dict]:
    """Read the lines of a metrics file, skipping incomplete ones of a killed process."""
    lines = []
    with open(path, encoding="utf-8") as f:
        for text in f:
            try:
                line = json.loads(text)
            except json.JSONDecodeError:
                continue
            if isinstance(line, dict) and isinstance(line.get("iteration"), int):
                lines.append(line)
    return lines


def _drop_lines_after(path: str, iteration: int) -> None:
    if not os.path.exists(path):
        return
    kept = [line for line in read_metrics(path) if line["iteration"] <= iteration]
    with atomic_write(path) as f:
        f.write("".join(json.dumps(line) + "\n" for line in kept).encode())
