"""RAPL energy counters, simulated by a folder, and NVML, simulated by an object."""

import ctypes
from types import SimpleNamespace

import pytest
import torch

from maskrcnn_benchmark.profiling.energy import EnergyReadError, _rapl_meter, energy_meter

NVML_CALLS = ["nvmlInit_v2", "nvmlDeviceGetHandleByUUID", "nvmlDeviceGetTotalEnergyConsumption"]


def write_zone(folder, name, joule, full=1000.0):
    zone = folder / name
    zone.mkdir(exist_ok=True)
    (zone / "max_energy_range_uj").write_text(str(int(full * 1e6)))
    (zone / "energy_uj").write_text(str(int(joule * 1e6)))


def test_packages_are_summed_without_their_parts(tmp_path):
    for name in ("intel-rapl:0", "intel-rapl:0:0", "intel-rapl:1"):
        write_zone(tmp_path, name, 5)
    joule, source = _rapl_meter(tmp_path)
    before = joule()
    write_zone(tmp_path, "intel-rapl:0", 7)
    write_zone(tmp_path, "intel-rapl:0:0", 6)
    write_zone(tmp_path, "intel-rapl:1", 8)
    assert joule() - before == pytest.approx(5)
    assert "2 CPU packages" in source


def test_counter_wraps_around(tmp_path):
    write_zone(tmp_path, "intel-rapl:0", 990, full=1000)
    joule, _ = _rapl_meter(tmp_path)
    before = joule()
    write_zone(tmp_path, "intel-rapl:0", 4, full=1000)
    assert joule() - before == pytest.approx(14)


def test_missing_counters_return_the_reason(tmp_path):
    joule, reason = _rapl_meter(tmp_path / "nothing")
    assert joule is None
    assert "no RAPL counters" in reason


def test_unreadable_counters_return_the_reason(tmp_path, monkeypatch):
    write_zone(tmp_path, "intel-rapl:0", 5)

    def refuse(self, *args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.read_text", refuse)
    joule, reason = _rapl_meter(tmp_path)
    assert joule is None
    assert "Permission denied" in reason


def test_rapl_counter_that_fails_later_raises(tmp_path):
    write_zone(tmp_path, "intel-rapl:0", 5)
    joule, _ = _rapl_meter(tmp_path)
    (tmp_path / "intel-rapl:0" / "energy_uj").unlink()
    with pytest.raises(EnergyReadError, match="energy_uj"):
        joule()


class SimulatedNvml:
    """NVML with a status for each function, and a counter in millijoules."""

    def __init__(self):
        self.status, self.millijoule, self.calls = dict.fromkeys(NVML_CALLS, 0), 5000, []

    def __getattr__(self, name):
        def call(*arguments):
            self.calls.append(name)
            if name == "nvmlDeviceGetTotalEnergyConsumption" and self.status[name] == 0:
                arguments[1]._obj.value = self.millijoule
            return self.status[name]

        return call


@pytest.fixture
def nvml(monkeypatch):
    simulated = SimulatedNvml()
    monkeypatch.setattr(ctypes, "CDLL", lambda name: simulated)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid="1234"))
    return simulated


def test_nvml_counter_is_read_in_joules(nvml):
    joule, source = energy_meter(torch.device("cuda"))
    before = joule()
    nvml.millijoule += 1500
    assert joule() - before == pytest.approx(1.5)
    assert "NVML" in source and nvml.calls[:3] == NVML_CALLS


@pytest.mark.parametrize("failing", range(3))
def test_nvml_is_not_called_after_a_failed_call(nvml, failing):
    nvml.status[NVML_CALLS[failing]] = 9
    joule, reason = energy_meter(torch.device("cuda"))
    assert joule is None and "status 9" in reason
    assert nvml.calls == NVML_CALLS[: failing + 1]


def test_nvml_counter_that_fails_later_raises(nvml):
    joule, _ = energy_meter(torch.device("cuda"))
    nvml.status["nvmlDeviceGetTotalEnergyConsumption"] = 15  # GPU is lost
    with pytest.raises(EnergyReadError, match="status 15"):
        joule()
