"""Peak of memory that is allocated and freed between two readings."""

import pytest
import torch

from maskrcnn_benchmark.profiling.peak_memory import CLEAR, MemoryMeter

MIB = 2**20


@pytest.mark.skipif(not CLEAR.exists(), reason="the system has no /proc/self/clear_refs")
def test_peak_includes_freed_memory():
    meter = MemoryMeter(torch.device("cpu"))
    meter.start()
    torch.ones(64 * MIB // 4)
    assert 60 * MIB < meter.peak() < 100 * MIB
    meter.start()
    assert meter.peak() < 40 * MIB


def test_peak_is_none_if_the_system_does_not_report_it(monkeypatch, tmp_path):
    monkeypatch.setattr("maskrcnn_benchmark.profiling.peak_memory.STATUS", tmp_path / "none")
    monkeypatch.setattr("maskrcnn_benchmark.profiling.peak_memory.CLEAR", tmp_path / "none" / "none")
    meter = MemoryMeter(torch.device("cpu"))
    meter.start()
    assert meter.peak() is None
