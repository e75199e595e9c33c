import logging
from pathlib import Path

import pytest
import torch

from maskrcnn_benchmark.config import cfg as defaults
from maskrcnn_benchmark.config.checks import CHOICES, check_values
from maskrcnn_benchmark.utils import compute_dtype as module
from maskrcnn_benchmark.utils.compute_dtype import DTYPES, compute_dtype, multiplies_bfloat16


@pytest.mark.parametrize("name", ["float32", "float16", "bfloat16"])
def test_given_names_are_used(name):
    assert compute_dtype(name, "cpu") is getattr(torch, name)


@pytest.mark.parametrize("supported, dtype", [(True, torch.bfloat16), (False, torch.float32)])
def test_auto_selects_by_device_and_logs_it(monkeypatch, caplog, supported, dtype):
    monkeypatch.setattr(module, "multiplies_bfloat16", lambda device: supported)
    with caplog.at_level(logging.INFO):
        assert compute_dtype("auto", "cpu") is dtype
    assert str(dtype).removeprefix("torch.") in caplog.text


def test_configs_accept_every_name():
    assert set(CHOICES["DTYPE"]) == {*DTYPES, "auto"}
    cfg = defaults.clone()
    cfg.merge_from_list(["DTYPE", "auto"])
    check_values(cfg)


@pytest.mark.parametrize("name", ["int8", "bf16", "", "Auto"])
def test_other_names_are_refused(name):
    with pytest.raises(ValueError, match=f"DTYPE is '{name}'; expected one of float32, .* auto"):
        compute_dtype(name, "cpu")


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="no /proc/cpuinfo to compare with")
def test_cpu_detection_agrees_with_the_system():
    words = set(Path("/proc/cpuinfo").read_text().split())
    assert multiplies_bfloat16(torch.device("cpu")) == bool({"avx512_bf16", "amx_bf16"} & words)


@pytest.mark.parametrize("capability, supported", [((7, 5), False), ((8, 0), True), ((9, 0), True)])
def test_gpu_detection_uses_the_compute_capability(monkeypatch, capability, supported):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert multiplies_bfloat16(torch.device("cuda")) is supported
