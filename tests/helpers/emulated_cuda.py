"""Compile the CUDA sources as C++ for the CPU: see emulation/cuda_runtime.h."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from maskrcnn_benchmark.native import build_ops

HERE = Path(__file__).resolve().parent
NAMESPACE = "maskrcnn_benchmark_emulated"
REPLACEMENTS = {
    "STABLE_TORCH_LIBRARY(maskrcnn_benchmark,": f"STABLE_TORCH_LIBRARY({NAMESPACE},",
    "STABLE_TORCH_LIBRARY_IMPL(maskrcnn_benchmark, CUDA,": f"STABLE_TORCH_LIBRARY_IMPL({NAMESPACE}, CPU,",
    "torch::stable::accelerator::DeviceGuard": "emulation::DeviceGuard",
}
LAUNCH = re.compile(r"([\w:]+(?:<[\w, <>:]*>)?)<<<(.*?)>>>\((.*?)\);", re.DOTALL)
SET_ORDER = """
extern "C" __attribute__((visibility("default"))) void set_order(int order) {
  emulation::order = static_cast<emulation::Order>(order);
}
"""


def build(folder: Path, flags: str = "-O1") -> Path:
    """Build a library whose namespace torch.ops.maskrcnn_benchmark_emulated runs csrc/cuda's kernels on CPU tensors.

    Its function set_order(0, 1 or 2) makes the threads of a block run first to last, last to first or shuffled.

    Raises:
        BuildError: there is no compiler, or it failed.
    """
    sources, torch, compiler = build_ops.source_folder(), build_ops.find_torch(), build_ops.find_compiler()
    copies = []
    for path in (sources / "ops.cpp", *sorted((sources / "cuda").glob("*.cu"))):
        copies.append(folder / f"{path.stem}.cpp")
        copies[-1].write_text(as_cpp(path.read_text()) + (SET_ORDER if path.stem == "nms" else ""))
    library = folder / "emulated.so"
    includes = f"-I {HERE / 'emulation'} -I {sources / 'cuda'} {torch.flags}"
    command = f"{compiler} {build_ops.CXX_FLAGS} {flags} -Wno-unknown-pragmas {includes} -shared -o {library}"
    command = f"{command} {' '.join(map(str, copies))} {torch.links}"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=300)
    if done.returncode != 0:
        raise build_ops.BuildError(done.stderr)
    return library


def as_cpp(source: str) -> str:
    """Convert CUDA source: calls for launches, the dispatcher's CPU key, and a separate namespace."""
    for old, new in REPLACEMENTS.items():
        source = source.replace(old, new)
    return LAUNCH.sub(r"emulation::launch(\2, [&] { \1(\3); });", source)
