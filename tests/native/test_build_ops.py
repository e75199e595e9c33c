"""Test the build of the ops, and the package without them."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from maskrcnn_benchmark.native import build_ops, library

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def compiled(monkeypatch):
    """Record the names of "compiled" libraries, without running a compiler."""
    names = []

    def compile_library(kind, sources, torch, target):
        names.append(kind)
        (target / build_ops.LIBRARIES[kind]).touch()
        return ""

    monkeypatch.setattr(build_ops, "compile_library", compile_library)
    monkeypatch.setenv("BUILD_CUDA", "0")
    return names


def run_python(code, folder, **environment):
    command = [sys.executable, "-W", "always", "-c", code]
    environment = os.environ | {"PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"} | environment
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment, timeout=120)


@pytest.mark.parametrize(
    "as_one_file",
    [
        # Less than half the time, as each file reads torch's headers; tests/csrc compiles the files one by one, as C++.
        True,
        pytest.param(False, marks=pytest.mark.slow),
    ],
)
def test_cuda_sources_compile_for_sm_90(tmp_path, monkeypatch, as_one_file):
    monkeypatch.setenv("BUILD_CUDA", "1")
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", "9.0")
    torch = build_ops.find_torch()
    try:
        build_ops.find_nvcc(torch)
        build_ops.find_compiler()
    except build_ops.BuildError as error:
        pytest.skip(f"the CUDA sources cannot be compiled here: {error}")
    sources = build_ops.source_folder()
    if as_one_file:  # and not optimized
        monkeypatch.setattr(build_ops, "NVCC_FLAGS", build_ops.NVCC_FLAGS.replace("-O3", "-O0 -Xcicc -O0 -Xptxas -O0"))
        (tmp_path / "cuda").mkdir()
        lines = (f'#include "{path}"\n' for path in sorted((sources / "cuda").glob("*.cu")))
        (tmp_path / "cuda" / "all.cu").write_text("".join(lines))
        sources = tmp_path
    build_ops.compile_library("cuda", sources, torch, tmp_path)
    assert (tmp_path / "_C_cuda.so").stat().st_size > 100_000
    if library.declared():  # it registers kernels for ops that the CPU library declares; this needs no GPU
        libraries = [library.LOADED["cpu"], tmp_path / "_C_cuda.so"]
        code = f"import torch; [torch.ops.load_library(path) for path in {[str(path) for path in libraries]}]\n"
        code += "assert 'registered at' in torch._C._dispatch_dump('maskrcnn_benchmark::nms').split('CUDA')[1]"
        done = run_python(code, tmp_path)
        assert done.returncode == 0, done.stderr


def test_a_missing_compiler_is_reported(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(build_ops, "find_ninja", lambda: "ninja")
    report = build_ops.build(target=tmp_path)
    assert "no C++ compiler" in report["cpu"]["error"]
    assert "no C++ compiler" in json.loads((tmp_path / build_ops.REPORT).read_text())["cpu"]["error"]
    assert "no C++ compiler" in (tmp_path / build_ops.LOG).read_text()
    assert build_ops.COMMAND in build_ops.describe(report)
    assert not (tmp_path / "_C.so").exists()


def test_missing_torch_is_reported(tmp_path, monkeypatch):
    monkeypatch.setattr(build_ops, "_site_folders", lambda: [tmp_path])
    assert "torch is not installed" in build_ops.build(target=tmp_path)["cpu"]["error"]


@pytest.mark.parametrize(
    ("version", "words"),
    [("2.10.1", "2.11 or newer"), ("2.15.0+cpu", "without its C.. headers"), (None, "not installed")],
)
def test_unusable_torch_is_reported(tmp_path, monkeypatch, version, words):
    (tmp_path / "torch").mkdir()
    text = "" if version is None else f"__version__ = '{version}'\ncuda: Optional[str] = None\n"
    (tmp_path / "torch" / "version.py").write_text(text)
    monkeypatch.setattr(build_ops, "_site_folders", lambda: [tmp_path])
    with pytest.raises(build_ops.BuildError, match=words):
        build_ops.find_torch()


def test_a_compiler_error_is_reported_and_does_not_raise(tmp_path):
    try:
        build_ops.find_compiler(), build_ops.find_ninja()
    except build_ops.BuildError as error:
        pytest.skip(str(error))
    sources = tmp_path / "csrc"
    for folder in ("common", "cpu", "cuda"):
        (sources / folder).mkdir(parents=True)
    (sources / "ops.cpp").write_text("#error wrong on purpose\n")
    report = build_ops.build(target=tmp_path, sources=sources)
    assert "wrong on purpose" in report["cpu"]["error"]


def test_build_and_setup_do_not_import_torch():
    code = "import sys, runpy; runpy.run_path('maskrcnn_benchmark/native/build_ops.py')"
    done = run_python(code + "; assert 'torch' not in sys.modules", ROOT)
    assert done.returncode == 0, done.stderr
    assert "import torch" not in (ROOT / "setup.py").read_text()


def test_unchanged_sources_are_not_rebuilt(tmp_path, compiled):
    for expected in (["cpu"], ["cpu"]):
        report = build_ops.build(target=tmp_path, if_changed=True)
        assert compiled == expected
        assert "BUILD_CUDA=0" in report["cuda"]["error"]
    build_ops.build(target=tmp_path)
    assert compiled == ["cpu", "cpu"]
    (tmp_path / "_C.so").unlink()
    build_ops.build(target=tmp_path, if_changed=True)
    assert compiled == ["cpu"] * 3


def test_changed_sources_are_rebuilt(tmp_path, compiled):
    sources = tmp_path / "csrc"
    shutil.copytree(build_ops.source_folder(), sources)
    build_ops.build(target=tmp_path, sources=sources, if_changed=True)
    with open(sources / "common" / "iou.h", "a") as header:
        header.write("// changed\n")
    build_ops.build(target=tmp_path, sources=sources, if_changed=True)
    assert compiled == ["cpu", "cpu"]


def test_read_only_package_is_built_into_the_user_cache(own_cache, compiled, monkeypatch):
    monkeypatch.setattr(build_ops.os, "access", lambda path, mode: False)
    report = build_ops.build()
    assert Path(report["folder"]).is_relative_to(own_cache)
    assert (Path(report["folder"]) / "_C.so").is_file()
    assert Path(report["folder"]) in library.folders()


def test_cache_folder_that_cannot_be_made_is_reported(tmp_path, compiled, monkeypatch):
    (tmp_path / "file").touch()  # instead of a folder without write access, which root can write to
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(build_ops.os, "access", lambda path, mode: False)
    report = build_ops.build()
    assert all(str(tmp_path / "file") in report[kind]["error"] for kind in build_ops.LIBRARIES)
    assert not compiled and build_ops.COMMAND in build_ops.describe(report)


def test_unreadable_sources_are_reported(tmp_path, compiled):
    report = build_ops.build(target=tmp_path, sources=tmp_path / "nowhere")
    for kind in build_ops.LIBRARIES:
        assert "nowhere" in report[kind]["error"]
        assert "nowhere" in build_ops.read_report(tmp_path)[kind]["error"]
    assert not compiled


def test_cuda_is_built_only_with_a_gpu_or_on_request(monkeypatch):
    for name in ("TORCH_CUDA_ARCH_LIST", "CUDA_HOME", "CUDA_PATH"):
        monkeypatch.delenv(name, raising=False)
    torch = build_ops.Torch(Path("torch"), "2.15.0", "13.0")
    monkeypatch.setattr(build_ops.shutil, "which", lambda name, path=None: "/cuda/bin/nvcc")
    monkeypatch.setattr(build_ops, "_output", lambda command: "Cuda compilation tools, release 13.1, V13.1.2")
    monkeypatch.setattr(build_ops, "gpu_is_present", lambda: False)

    def outcome(choice):
        monkeypatch.setenv("BUILD_CUDA", choice)
        try:
            return build_ops.find_nvcc(torch)
        except build_ops.BuildError as error:
            return str(error)

    assert "no GPU" in outcome("auto")
    assert outcome("1") == "/cuda/bin/nvcc"
    assert "BUILD_CUDA=0" in outcome("0")
    assert "'yes'" in outcome("yes")
    monkeypatch.setattr(build_ops, "gpu_is_present", lambda: True)
    assert outcome("auto") == "/cuda/bin/nvcc"
    torch.cuda = "12.8"
    assert "CUDA 12.8" in outcome("auto") and outcome("1") == "/cuda/bin/nvcc"
    torch.cuda = None
    assert "without CUDA" in outcome("1")


def test_cuda_architectures(monkeypatch):
    monkeypatch.setattr(build_ops, "_output", lambda command: "sm_75\nsm_80\nsm_90\nsm_120\n")
    monkeypatch.setattr(build_ops, "_gpu_capabilities", lambda: [])

    def flags(listed):
        monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", listed)
        return build_ops.architecture_flags("nvcc").replace("-gencode=arch=", "").split()

    assert flags("8.0;9.0+PTX") == [
        "compute_80,code=sm_80",
        "compute_90,code=sm_90",
        "compute_90,code=compute_90",
    ]
    assert flags("9.0a") == ["compute_90a,code=sm_90a"]
    assert [flag.split("code=")[1] for flag in flags("")] == ["sm_75", "sm_80", "sm_90", "sm_120", "compute_120"]
    with pytest.raises(build_ops.BuildError, match="'Hopper'"):
        flags("Hopper")
    monkeypatch.setattr(build_ops, "_gpu_capabilities", lambda: ["9.0"])
    assert flags("") == ["compute_90,code=sm_90", "compute_90,code=compute_90"]


def test_library_of_other_sources_is_not_loaded(monkeypatch, own_cache, tmp_path):
    monkeypatch.setattr(build_ops, "PACKAGE", tmp_path)
    sources = build_ops.source_folder(ROOT / "maskrcnn_benchmark")
    monkeypatch.setattr(build_ops, "source_folder", lambda: sources)
    assert library._load("cpu") == (None, "not built yet")
    (tmp_path / "_C.so").write_bytes(b"not a library")
    (tmp_path / build_ops.REPORT).write_text('{"cpu": {"hash": "0123"}}')
    assert "built from other sources" in library._load("cpu")[1]
    (tmp_path / build_ops.REPORT).write_text(json.dumps({"cpu": {"hash": build_ops.source_hash("cpu", sources)}}))
    assert "does not load" in library._load("cpu")[1]


def test_package_without_libraries_works_and_warns_once(tmp_path, own_cache):
    package = tmp_path / "maskrcnn_benchmark"
    ignored = shutil.ignore_patterns("*.so", "_build*", "__pycache__")
    shutil.copytree(ROOT / "maskrcnn_benchmark", package, ignore=ignored)
    shutil.copytree(build_ops.source_folder(), package / "csrc")
    (package / build_ops.REPORT).write_text('{"cpu": {"error": "no C++ compiler"}}')
    code = """
import torch, maskrcnn_benchmark
from maskrcnn_benchmark.layers.nms import batched_nms, nms
from maskrcnn_benchmark.layers.roi_align import roi_align
from maskrcnn_benchmark.layers.sigmoid_focal_loss import sigmoid_focal_loss
boxes = torch.tensor([[0.0, 0, 9, 9], [0, 0, 9, 8], [20, 20, 29, 29]])
assert batched_nms(boxes, torch.tensor([0.1, 0.2, 0.3]), None, 0.5).tolist() == [2, 1]
assert nms(boxes, torch.tensor([0.1, 0.2, 0.3]), 0.5).tolist() == [1, 2]
x = torch.zeros(2, 3, requires_grad=True)
sigmoid_focal_loss(x, torch.tensor([0, 1]), 2.0, 0.25, reduction="sum").backward()
assert x.grad.abs().sum() > 0
assert roi_align(torch.ones(1, 2, 8, 8), torch.tensor([[0.0, 1, 1, 5, 5]]), 2, 1.0, 2).eq(1).all()
"""
    done = run_python(code, tmp_path)
    assert done.returncode == 0, done.stderr
    warnings = [line for line in done.stderr.splitlines() if "without its compiled" in line]
    assert len(warnings) == 1
    assert "no C++ compiler" in warnings[0] and build_ops.COMMAND in warnings[0]


@pytest.mark.slow
def test_wheel_contains_libraries_and_sources(tmp_path):
    pytest.importorskip("setuptools", minversion="77")
    source = tmp_path / "source"
    ignored = shutil.ignore_patterns(".git", ".venv", "*.so", "_build*", "build", "*.egg-info", "datasets", "output")
    shutil.copytree(ROOT, source, ignore=ignored)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", str(tmp_path), "."]
    subprocess.run(command, cwd=source, check=True, timeout=300)
    (wheel,) = tmp_path.glob("*.whl")
    assert "-py3-none-" in wheel.name and not wheel.name.endswith("-any.whl")
    names = zipfile.ZipFile(wheel).namelist()
    for expected in ("csrc/ops.cpp", "csrc/common/iou.h", "csrc/cuda/nms.cu", "_build.json", "native/build_ops.py"):
        assert f"maskrcnn_benchmark/{expected}" in names
    for folder in ("weights", "data/sample_image"):
        files = {path.relative_to(ROOT).as_posix() for path in (ROOT / "maskrcnn_benchmark" / folder).iterdir()}
        assert len(files) >= 2 and files <= set(names)
    assert not [name for name in names if name.startswith(("tests/", "csrc/"))]
