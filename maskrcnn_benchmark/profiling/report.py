"""Format measurements as a table and as JSON."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import asdict

import torch

from maskrcnn_benchmark import __version__
from maskrcnn_benchmark.native.collect_env import cpu_name

from .measure import Measurement, Spread
from .stages import STAGES

MISSING = "-"


def machine(device: str) -> dict:
    """Describe the machine of a measurement: hardware, threads, versions."""
    on_gpu = device.startswith("cuda")
    return {
        "cpu": cpu_name(),
        "gpu": torch.cuda.get_device_name(device) if on_gpu else None,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "maskrcnn_benchmark": __version__,
        "python": platform.python_version(),
    }


def as_json(measurements: Sequence[Measurement], settings: dict) -> dict:
    """Convert to a dict for json.dump: "machine", "settings", and "configs" with the fields of Measurement."""
    configs = [asdict(measurement) for measurement in measurements]
    return {"machine": machine(measurements[0].device), "settings": settings, "configs": configs}


def as_text(measurements: Sequence[Measurement], settings: dict) -> str:
    """Format a table with one column per config; times are medians, with the 10th and 90th percentile in brackets."""
    known = machine(measurements[0].device)
    lines = [
        f"{known['gpu'] or known['cpu']}, {known['threads']} CPU threads, torch {known['torch']}",
        ", ".join(f"{name} {value}" for name, value in settings.items()),
        "",
    ]
    rows = _rows(measurements)
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    for row in rows:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        lines.append("  ".join(cells).rstrip())
    sources = sorted({measurement.energy_source for measurement in measurements})
    lines += ["", f"energy: {'; '.join(sources)}"]
    return "\n".join(lines)


def _rows(measurements: Sequence[Measurement]) -> list[list[str]]:
    def row(title, cell):
        return [title, *(cell(measurement) for measurement in measurements)]

    rows = [
        row("", lambda m: m.name),
        row("dtype and device", lambda m: f"{m.dtype} on {m.device}"),
        row("weights", lambda m: m.weights.rpartition("/")[2]),
        row("parameters, M", lambda m: f"{m.parameters / 1e6:.1f}"),
        row("multiply-adds, G", lambda m: f"{m.multiply_adds['total'] / 1e9:.1f}"),
        *(
            row(f"  {stage}", lambda m, stage=stage: f"{m.multiply_adds[stage] / 1e9:.1f}")
            for stage in ("backbone", "FPN", "heads")
        ),
        row("network input", lambda m: f"{m.network_input[1]} x {m.network_input[0]}"),
        row("detections", lambda m: f"{m.detections:.0f}"),
        *(row(f"{stage}, ms", lambda m, stage=stage: _milliseconds(m.stage_ms[stage])) for stage in STAGES),
        row("image to detections, ms", lambda m: _milliseconds(m.detect_ms)),
        row("images per second", lambda m: f"{m.images_per_second:.2f}"),
        row("GFLOP/s reached", lambda m: f"{m.operations_per_second / 1e9:.0f}"),
        row("peak memory of testing, MiB", lambda m: _mebibytes(m.test_memory)),
        row("energy per image, J", lambda m: MISSING if m.joule_per_image is None else f"{m.joule_per_image:.2f}"),
    ]
    if any(measurement.train_ms is not None for measurement in measurements):
        rows += [
            row("training step, ms", lambda m: _milliseconds(m.train_ms)),
            row("peak memory of training, MiB", lambda m: _mebibytes(m.train_memory)),
        ]
    return rows


def _milliseconds(spread: Spread) -> str:
    digits = 1 if spread.median < 100 else 0
    low, median, high = (f"{value:.{digits}f}" for value in (spread.low, spread.median, spread.high))
    return f"{median} ({low} - {high})"


def _mebibytes(count: int | None) -> str:
    return MISSING if count is None else f"{count / 2**20:.0f}"
