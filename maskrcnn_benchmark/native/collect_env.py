"""Collect the facts for a bug report: versions, CPU, GPU, threads, and which compiled ops are loaded, or why not.

python -m maskrcnn_benchmark.utils.collect_env
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from maskrcnn_benchmark import __version__

from . import build_ops

PACKAGES = (
    "torchvision",
    "numpy",
    "pillow",
    "opencv-python",
    "opencv-python-headless",
    "yacs",
    "pycocotools",
    "faster-coco-eval",
    "tensorboard",
    "ninja",
)
# as spelled in /proc/cpuinfo: the flags by which the ops and PyTorch select their code
CPU_FLAGS = ("avx2", "fma", "avx512f", "avx512_bf16", "amx_bf16", "amx_tile", "asimd", "sve", "bf16")


def collect_env_info() -> str:
    """Return lines of "name: value"."""
    import torch

    lines = [
        ("maskrcnn_benchmark", f"{__version__} in {build_ops.PACKAGE}"),
        ("Python", f"{platform.python_version()} ({sys.executable})"),
        ("system", platform.platform()),
        ("torch", f"{torch.__version__}, built for CUDA {torch.version.cuda or '- (no CUDA)'}"),
        *((name, version) for name in PACKAGES if (version := _package_version(name))),
        ("C++ compiler", _first_line(_compiler())),
        ("nvcc", _last_line([shutil.which("nvcc") or "/usr/local/cuda/bin/nvcc"])),
        *_cpu_lines(torch),
        *_gpu_lines(torch),
        *_kernel_lines(),
    ]
    return "\n".join(f"{name}: {value}" for name, value in lines)


def cpu_name() -> str:
    """Return the CPU's model name."""
    return _cpu_info("model name") or platform.processor() or "unknown CPU"


def cpu_flags() -> set[str]:
    """Return the instruction set extensions of the CPU, as spelled in /proc/cpuinfo."""
    return set(_cpu_info("flags|Features").split())


def _cpu_info(names: str) -> str:
    """Return the first value in /proc/cpuinfo whose name matches the pattern `names`; "" if there is none."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return ""
    found = re.search(rf"^(?:{names})\s*:\s*(.+)$", text, re.MULTILINE)
    return found.group(1) if found else ""


def _package_version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _compiler() -> list[str]:
    try:
        return shlex.split(build_ops.find_compiler())
    except build_ops.BuildError:
        return ["c++"]


def _version_output(command: list[str]) -> list[str]:
    try:
        # The whole command, because a launcher such as ccache passes --version on to the compiler.
        done = subprocess.run([*command, "--version"], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return done.stdout.strip().splitlines()


def _first_line(command: list[str]) -> str:
    return next(iter(_version_output(command)), "not found")


def _last_line(command: list[str]) -> str:
    return next(iter(reversed(_version_output(command))), "not found")


def _cpu_lines(torch) -> list[tuple[str, str]]:
    flags = cpu_flags()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return [
        ("CPU", f"{cpu_name()}, {cores} usable cores"),
        ("CPU flags", " ".join(flag for flag in CPU_FLAGS if flag in flags) or "unknown"),
        ("torch CPU code", torch.backends.cpu.get_cpu_capability()),
        (
            "threads",
            f"{torch.get_num_threads()} in an op, {torch.get_num_interop_threads()} between ops, "
            f"OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'not set')}",
        ),
    ]


def _gpu_lines(torch) -> list[tuple[str, str]]:
    if not torch.cuda.is_available():
        return [("GPU", "none that torch can use")]
    lines = []
    for index in range(torch.cuda.device_count()):
        gpu = torch.cuda.get_device_properties(index)
        capability = f"compute capability {gpu.major}.{gpu.minor}"
        lines.append((f"GPU {index}", f"{gpu.name}, {gpu.total_memory / 2**30:.0f} GiB, {capability}"))
    return lines


def _kernel_lines() -> list[tuple[str, str]]:
    # Imported here because library.py loads the ops at import.
    from . import library

    lines = []
    for kind in build_ops.LIBRARIES:
        loaded = library.LOADED.get(kind)
        state = f"from {loaded}" if loaded else f"not loaded: {library.REASONS[kind]}"
        lines.append((f"{kind.upper()} kernels", state))
    if library.REASONS:
        lines.append(("to build the kernels", build_ops.COMMAND))
        logs = [folder / build_ops.LOG for folder in library.folders()]
        lines += [("log of the last build", str(log)) for log in logs if log.is_file()]
    return lines
