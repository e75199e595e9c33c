"""Read energy counters: NVIDIA's NVML for GPUs, Linux's RAPL counters for CPUs."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path

import torch

POWERCAP = Path("/sys/class/powercap")


class EnergyReadError(RuntimeError):
    """The energy counter cannot be read any more."""


def energy_meter(device: torch.device) -> tuple[Callable[[], float] | None, str]:
    """Return a function that reads the energy counter of a device.

    The CPU counter covers all CPU packages, the GPU counter the whole card. Both include everything else that runs
    there.

    Returns:
        (read, source): `read()` returns joules since an arbitrary start, so only differences are meaningful; `source`
        names the counter. Without a counter, `read` is None and `source` is the reason. `read` raises EnergyReadError.
    """
    return _nvml_meter(device) if device.type == "cuda" else _rapl_meter()


def _rapl_meter(folder: Path = POWERCAP):
    # intel-rapl:0 is a package, intel-rapl:0:0 a part of it; AMD CPUs use the same names
    packages = sorted(zone for zone in folder.glob("intel-rapl:*") if zone.name.count(":") == 1)
    packages = [zone for zone in packages if (zone / "energy_uj").exists()]
    if not packages:
        return None, f"no RAPL counters in {folder}"
    try:
        counters = [_Counter(zone) for zone in packages]
    except OSError as error:
        return None, f"RAPL counters cannot be read: {error.strerror} (by default only root can read them)"
    return lambda: sum(counter.joule() for counter in counters), f"RAPL, {len(counters)} CPU packages"


class _Counter:
    """Counter of one CPU package in microjoules, which wraps around to 0."""

    def __init__(self, zone: Path):
        self.file = zone / "energy_uj"
        self.full = int((zone / "max_energy_range_uj").read_text())
        self.last = int(self.file.read_text())
        self.total = 0

    def joule(self) -> float:
        try:
            now = int(self.file.read_text())
        except OSError as error:
            raise EnergyReadError(f"RAPL counters cannot be read any more: {error}") from error
        self.total += now - self.last if now >= self.last else now - self.last + self.full
        self.last = now
        return self.total * 1e-6


def _nvml_meter(device: torch.device):
    try:
        nvml = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError as error:
        return None, f"NVML cannot be loaded: {error}"
    handle, energy = ctypes.c_void_p(), ctypes.c_ulonglong()
    # by UUID, because CUDA_VISIBLE_DEVICES renumbers the GPUs for CUDA but not for NVML
    uuid = f"GPU-{torch.cuda.get_device_properties(device).uuid}".encode()
    # Each call requires that those before it returned 0.
    status = (
        nvml.nvmlInit_v2()
        or nvml.nvmlDeviceGetHandleByUUID(uuid, ctypes.byref(handle))
        or nvml.nvmlDeviceGetTotalEnergyConsumption(handle, ctypes.byref(energy))
    )
    if status != 0:
        return None, f"NVML does not report the energy of this GPU (status {status})"

    def joule() -> float:
        status = nvml.nvmlDeviceGetTotalEnergyConsumption(handle, ctypes.byref(energy))
        if status != 0:
            raise EnergyReadError(f"NVML does not report the energy of this GPU any more (status {status})")
        return energy.value * 1e-3

    return joule, "NVML, the whole GPU"
