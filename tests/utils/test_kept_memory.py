"""Test that freed memory stays with the process on request."""

import platform
import subprocess
import sys
from pathlib import Path

import pytest

# Four blocks of 64 MiB; the last one is at the end of the heap. Prints the difference of resident MiB after and before.
CODE = """
import re, sys
import torch
from maskrcnn_benchmark.utils.kept_memory import keep_freed_memory

def resident():
    return int(re.search(r"VmRSS:\\s*(\\d+)", open("/proc/self/status").read()).group(1)) // 1024

if "keep" in sys.argv:
    assert keep_freed_memory()
torch.ones(8).sum()
before = resident()
blocks = [torch.ones(2**24) for _ in range(4)]
del blocks
print(resident() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library than glibc")
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc/self/status to measure by")
@pytest.mark.parametrize("argument, least, most", [("keep", 250, 300), ("leave", -10, 70)])
def test_freed_blocks_are_kept_on_request(argument, least, most):
    command = [sys.executable, "-c", CODE, argument]
    kept = int(subprocess.run(command, text=True, stdout=subprocess.PIPE, check=True).stdout)
    assert least < kept < most


def test_other_systems_are_unchanged(monkeypatch):
    from maskrcnn_benchmark.utils import kept_memory

    monkeypatch.setattr(kept_memory.sys, "platform", "darwin")
    assert kept_memory.keep_freed_memory() is False
