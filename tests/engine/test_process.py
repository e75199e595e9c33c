"""Process-wide settings of a run, and that importing and building a model change none of them."""

import json
import logging
import os
import subprocess
import sys

import pytest
import torch
from conftest import ROOT

from maskrcnn_benchmark.engine import process

logger = logging.getLogger("maskrcnn_benchmark.test_process")

IMPORT_AND_BUILD = """
import json, logging, os, signal, sys, threading, warnings
import torch, torchvision, numpy, yaml

def state():
    return {
        "warning filters": [repr(entry) for entry in warnings.filters],
        "threads of torch": [torch.get_num_threads(), torch.get_num_interop_threads()],
        "threads of Python": sorted(thread.name for thread in threading.enumerate()),
        "torch": [
            str(torch.get_default_dtype()), torch.is_grad_enabled(), torch.are_deterministic_algorithms_enabled(),
            torch.get_float32_matmul_precision(), torch.backends.mkldnn.enabled, torch.backends.cudnn.benchmark,
            torch.backends.cudnn.deterministic, torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32,
            str(torch.multiprocessing.get_sharing_strategy()),
        ],
        "environment": dict(os.environ),
        "working folder": os.getcwd(),
        "signal handlers": [str(signal.getsignal(number)) for number in signal.valid_signals()],
        "excepthook": [str(sys.excepthook), str(threading.excepthook)],
        "handlers of logs": [str(handler) for handler in logging.root.handlers],
        "level of logs": logging.root.level,
        "recursion limit": sys.getrecursionlimit(),
    }

before = state()
import importlib, pkgutil
import maskrcnn_benchmark
for module in pkgutil.walk_packages(maskrcnn_benchmark.__path__, "maskrcnn_benchmark."):
    if not module.name.startswith("maskrcnn_benchmark._C"):  # the compiled ops
        importlib.import_module(module.name)
from maskrcnn_benchmark.config import cfg
from maskrcnn_benchmark.fast.for_inference import for_inference
from maskrcnn_benchmark.modeling.detector import build_detection_model
cfg = cfg.clone()
cfg.merge_from_list(["MODEL.DEVICE", "cpu", "MODEL.RPN_ONLY", True, "MODEL.FCOS_ON", True,
    "MODEL.BACKBONE.CONV_BODY", "V-27-FPN-RETINANET"])
for_inference(build_detection_model(cfg).eval())
after = state()
print(json.dumps({name: [before[name], after[name]] for name in before if before[name] != after[name]}))
"""


def test_importing_everything_and_building_a_model_change_nothing_in_the_process():
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_AND_BUILD],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {}


@pytest.fixture
def threads(monkeypatch, caplog):
    """Function threads(**environment): return the number that choose_threads sets on 8 cores, and its log line."""
    caplog.set_level("INFO")
    before = torch.get_num_threads()
    monkeypatch.setattr(process, "usable_cores", lambda: 8)

    def call(**environment):
        for name in ("MB_NUM_THREADS", "LOCAL_WORLD_SIZE", "OMP_NUM_THREADS"):
            monkeypatch.delenv(name, raising=False)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        torch.set_num_threads(1)
        process.choose_threads(logger)
        return torch.get_num_threads(), caplog.records[-1].message

    yield call
    torch.set_num_threads(before)


def test_torchruns_single_thread_becomes_a_share_of_the_cores(threads):
    number, line = threads(LOCAL_WORLD_SIZE="2", OMP_NUM_THREADS="1")
    assert number == 4
    assert line == (
        "Using 4 CPU threads per process on 8 cores (an equal share of the cores instead of torchrun's "
        "OMP_NUM_THREADS=1; MB_NUM_THREADS=N changes it)"
    )


def test_more_processes_than_cores_get_one_thread_each(threads):
    assert threads(LOCAL_WORLD_SIZE="16", OMP_NUM_THREADS="1")[0] == 1


def test_user_setting_is_kept(threads):
    assert threads(MB_NUM_THREADS="3", LOCAL_WORLD_SIZE="2", OMP_NUM_THREADS="1")[0] == 3
    assert threads(LOCAL_WORLD_SIZE="2", OMP_NUM_THREADS="2")[0] == 1  # as torch had it
    number, line = threads(OMP_NUM_THREADS="1")
    assert number == 1
    assert "torch's choice" in line


@pytest.mark.parametrize("value", ["0", "-1", "many"])
def test_invalid_number_of_threads_is_an_error(threads, value):
    with pytest.raises(ValueError, match="MB_NUM_THREADS is"):
        threads(MB_NUM_THREADS=value)


def test_warning_about_skipped_steps_is_suppressed_only_in_the_block(recwarn):
    import warnings

    text = "Detected call of `lr_scheduler.step()` before `optimizer.step()`"

    def shown():  # garbage of earlier tests may warn, too
        return [warning for warning in recwarn if text in str(warning.message)]

    filters = list(warnings.filters)
    with process.quiet_about_skipped_steps(torch.amp.GradScaler("cpu", enabled=True)):
        warnings.warn(text, stacklevel=1)
    assert not shown()
    assert warnings.filters == filters
    with process.quiet_about_skipped_steps(torch.amp.GradScaler("cpu", enabled=False)):
        warnings.warn(text, stacklevel=1)
    assert len(shown()) == 1


@pytest.mark.parametrize(
    "user, wanted", [({}, "1000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "ACTIVE"}, None)]
)
def test_spin_count_is_limited_unless_the_user_sets_it(monkeypatch, user, wanted):
    for name in process.SPIN_VARIABLES:
        monkeypatch.setenv(name, "")  # so that it is restored afterwards
        monkeypatch.delenv(name)
    for name, value in user.items():
        monkeypatch.setenv(name, value)
    process.before_torch()
    assert os.environ.get("GOMP_SPINCOUNT") == wanted


def test_code_before_torch_does_not_import_torch():
    code = (
        "import sys, maskrcnn_benchmark.utils.env\n"
        "from maskrcnn_benchmark.engine import process, script\n"
        "process.before_torch()\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True)


@pytest.mark.parametrize("tool", ["benchmark", "test_net", "train_net"])
def test_tools_call_before_torch_before_importing_torch(tool):
    lines = (ROOT / "tools" / f"{tool}.py").read_text().splitlines()
    before = lines[: lines.index("process.before_torch()")]
    imports = [line.split()[1] for line in before if line.startswith(("import ", "from "))]
    assert imports == ["maskrcnn_benchmark.utils.env", "maskrcnn_benchmark.engine"]
