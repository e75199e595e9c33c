"""Load the compiled ops once, and keep the reason if they cannot be loaded.

The ops are in `torch.ops.maskrcnn_benchmark`. A layer calls `kernels_for(device)`, and runs its twin in plain PyTorch
if the result is False. The first such run of a process warns.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import torch

from . import build_ops


def folders() -> list[Path]:
    """Return the folders that may contain the libraries: the package, then the cache of a user without write access."""
    try:
        return [build_ops.PACKAGE, build_ops.cache_folder(build_ops.source_folder())]
    except (build_ops.BuildError, OSError):
        return [build_ops.PACKAGE]


def _load(kind: str) -> tuple[Path | None, str | None]:
    """Return (the loaded library, None), or (None, the reason why there is none)."""
    library = build_ops.LIBRARIES[kind]
    try:
        sources = build_ops.source_folder()
        expected = build_ops.source_hash(kind, sources)
    except (build_ops.BuildError, OSError) as error:
        return None, str(error)
    reason = "not built yet"
    for folder in folders():
        report = build_ops.read_report(folder).get(kind, {})
        if "error" in report:
            reason = report["error"]
        elif not (folder / library).is_file():
            continue
        elif report.get("hash") != expected:
            reason = f"{folder / library} was built from other sources than those in {sources}"
        else:
            try:
                torch.ops.load_library(str(folder / library))
            except (OSError, RuntimeError) as error:
                reason = f"{folder / library} does not load: {error}"
            else:
                return folder / library, None
    return None, reason


def _load_all() -> tuple[dict[str, Path], dict[str, str]]:
    loaded, reasons = {}, {}
    for kind in ("cpu", "cuda"):
        if kind == "cuda" and not torch.backends.cuda.is_built():
            path, reason = None, "this torch is built without CUDA"
        elif kind == "cuda" and "cpu" not in loaded:
            path, reason = None, f"the CPU library, which declares the ops, is missing: {reasons['cpu']}"
        else:
            path, reason = _load(kind)
        if path is None:
            reasons[kind] = reason
        else:
            loaded[kind] = path
    return loaded, reasons


LOADED, REASONS = _load_all()
# A tensor on the meta device has no data: the fake kernels compute its shape.
_DEVICES = set(LOADED) | ({"meta"} if "cpu" in LOADED else set())
_warned = False


def declared() -> bool:
    """Check that torch.ops.maskrcnn_benchmark exists, so that fake kernels and autograd can be registered."""
    return "cpu" in LOADED


def forbid_gradients(name: str, instead: str) -> None:
    """Make the op `name` raise when its results are differentiated. Otherwise autograd treats them as constants.

    Args:
        instead: the differentiable function, for the message.
    """

    def backward(ctx, *grads):
        raise RuntimeError(f"{name} has no gradient, so it can't be differentiated twice; {instead} can")

    torch.library.register_autograd(f"maskrcnn_benchmark::{name}", backward)


def kernels_for(device: torch.device) -> bool:
    """Check for compiled kernels on this device. The first False of a process warns, with the reason and the remedy."""
    if device.type in _DEVICES:
        return True
    if not torch.compiler.is_compiling():  # a warning cannot be traced; torch.compiler.disable takes a second to import
        _warn_once(device.type)
    return False


def _warn_once(device_type: str) -> None:
    global _warned
    if _warned:
        return
    _warned = True
    reason = REASONS.get(device_type, f"there are none for {device_type!r} devices")
    warnings.warn(
        f"maskrcnn_benchmark runs without its compiled {device_type.upper()} kernels, on slower PyTorch code: "
        f"{reason}. To build them: {build_ops.COMMAND}",
        stacklevel=4,
    )
