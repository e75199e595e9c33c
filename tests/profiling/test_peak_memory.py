"""Memory that is taken and given back between two looks."""

import pytest
import torch

from maskrcnn_benchmark.profiling.peak_memory import CLEAR, MemoryMeter

MIB = 2**20


@pytest.mark.skipif(not CLEAR.exists(), reason="the system has no /proc/self/clear_refs")
def test_peak_counts_what_was_given_back():
    meter = MemoryMeter(torch.device("cpu"))
    meter.start()
    torch.ones(64 * MIB // 4)
    assert 60 * MIB < meter.peak() < 100 * MIB
    meter.start()
    assert meter.peak() < 40 * MIB


def test_unknown_where_the_system_does_not_tell(monkeypatch, tmp_path):
    monkeypatch.setattr("maskrcnn_benchmark.profiling.peak_memory.STATUS", tmp_path / "none")
    monkeypatch.setattr("maskrcnn_benchmark.profiling.peak_memory.CLEAR", tmp_path / "none" / "none")
    meter = MemoryMeter(torch.device("cpu"))
    meter.start()
    assert meter.peak() is None
