"""Energy that the machine says it has used: NVIDIA's NVML for GPUs, Linux's RAPL counters for CPUs."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path

import torch

POWERCAP = Path("/sys/class/powercap")


def energy_meter(device: torch.device) -> tuple[Callable[[], float] | None, str]:
    """(a function that returns Joule since some moment, whose differences are energy; what it reads).

    A CPU's counter is that of all its packages, a GPU's that of the whole card: with everything else that runs there.
    The function is None where the machine does not tell, and the text then says why.
    """
    return _nvml_meter(device) if device.type == "cuda" else _rapl_meter()


def _rapl_meter(folder: Path = POWERCAP):
    # intel-rapl:0 is a package, intel-rapl:0:0 a part of it; AMD's CPUs go by the same name
    packages = sorted(zone for zone in folder.glob("intel-rapl:*") if zone.name.count(":") == 1)
    packages = [zone for zone in packages if (zone / "energy_uj").exists()]
    if not packages:
        return None, f"no RAPL counters in {folder}"
    try:
        counters = [_Counter(zone) for zone in packages]
    except OSError as error:
        return None, f"RAPL counters can't be read: {error.strerror} (they are for root by default)"
    return lambda: sum(counter.joule() for counter in counters), f"RAPL, {len(counters)} CPU packages"


class _Counter:
    """One package's counter, in micro-Joule, which begins again at 0 when it is full."""

    def __init__(self, zone: Path):
        self.file = zone / "energy_uj"
        self.full = int((zone / "max_energy_range_uj").read_text())
        self.last = int(self.file.read_text())
        self.total = 0

    def joule(self) -> float:
        now = int(self.file.read_text())
        self.total += now - self.last if now >= self.last else now - self.last + self.full
        self.last = now
        return self.total * 1e-6


def _nvml_meter(device: torch.device):
    try:
        nvml = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError as error:
        return None, f"NVML can't be loaded: {error}"
    handle, energy = ctypes.c_void_p(), ctypes.c_ulonglong()
    # by its UUID: CUDA_VISIBLE_DEVICES numbers the GPUs for CUDA, not for NVML
    uuid = f"GPU-{torch.cuda.get_device_properties(device).uuid}".encode()
    for status in (
        nvml.nvmlInit_v2(),
        nvml.nvmlDeviceGetHandleByUUID(uuid, ctypes.byref(handle)),
        nvml.nvmlDeviceGetTotalEnergyConsumption(handle, ctypes.byref(energy)),
    ):
        if status != 0:
            return None, f"NVML does not tell the energy of this GPU (status {status})"

    def joule() -> float:
        nvml.nvmlDeviceGetTotalEnergyConsumption(handle, ctypes.byref(energy))
        return energy.value * 1e-3

    return joule, "NVML, the whole GPU"
