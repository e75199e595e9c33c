"""Compile csrc/ into the libraries that native/library.py loads.

    python -m maskrcnn_benchmark.utils.build_ops

setup.py runs this file while the package is installed. It never imports torch: pip builds in a sandbox where torch
cannot be imported. PyTorch's stable ABI only requires the headers and libraries in torch's folder, which are found by
path. One binary then works with every Python, and every torch from 2.11 on.

Environment variables:
    BUILD_CUDA: "1" builds the CUDA kernels, "0" does not. "auto" (the default) does if nvcc is found and there is a
        GPU or TORCH_CUDA_ARCH_LIST. Without a GPU nothing would run them, and they take most of the time.
    TORCH_CUDA_ARCH_LIST: compute capabilities such as "8.0;9.0+PTX". Default: those of the GPUs in the machine, or,
        without a GPU, all that this nvcc supports from Volta on, plus PTX of the newest.
    CXX, CUDA_HOME: the compilers, if they are not on PATH.
    MAX_JOBS: number of compiler processes at a time.

A build writes, beside the libraries, `_build.json` (what was built, from which sources, or why not) and `_build.log`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import re
import shlex
import shutil
import site
import subprocess
import sys
import sysconfig
import tempfile
from dataclasses import dataclass
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent
COMMAND = "python -m maskrcnn_benchmark.utils.build_ops"
OLDEST_TORCH = (2, 11)
LIBRARIES = {"cpu": "_C.so", "cuda": "_C_cuda.so"}
REPORT, LOG = "_build.json", "_build.log"
# -ffp-contract=off, --fmad=false: every CPU and GPU makes the same decision for boxes near the NMS threshold.
# -fno-trapping-math allows loops with branches to be vectorized; it changes no result.
CXX_FLAGS = "-std=c++17 -O3 -fPIC -fvisibility=hidden -ffp-contract=off -fno-trapping-math -fno-math-errno"
CXX_FLAGS += " -DTORCH_TARGET_VERSION=0x020b000000000000"
NVCC_FLAGS = "-std=c++17 -O3 --fmad=false -DUSE_CUDA -DTORCH_TARGET_VERSION=0x020b000000000000 -Xcompiler -fPIC"
NVCC_FLAGS += " -Xcompiler -fvisibility=hidden"
ARCHITECTURES = ("7.0", "7.5", "8.0", "8.6", "8.9", "9.0", "10.0", "12.0")


class BuildError(RuntimeError):
    """The reason why there is no library. collect_env prints the message."""


@dataclass
class Torch:
    """A torch installation that is not imported."""

    folder: Path
    version: str
    cuda: str | None

    @property
    def flags(self) -> str:
        return f"-isystem {shlex.quote(str(self.folder / 'include'))}"

    @property
    def links(self) -> str:
        return f"-L{shlex.quote(str(self.folder / 'lib'))} -ltorch -ltorch_cpu -lc10"


def source_folder(package: Path = PACKAGE) -> Path:
    """Return csrc/ inside an installed package, or beside the package in a checkout."""
    for folder in (package / "csrc", package.parent / "csrc"):
        if (folder / "ops.cpp").is_file():
            return folder
    raise BuildError(f"no C++ sources: looked for csrc/ops.cpp in {package} and {package.parent}")


def source_hash(kind: str, sources: Path) -> str:
    """Return a hash that changes when the library of this kind must be rebuilt."""
    digest = hashlib.sha256()
    for path in sorted([sources / "ops.cpp", *(sources / "common").glob("*"), *(sources / kind).glob("*")]):
        digest.update(path.relative_to(sources).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    digest.update((CXX_FLAGS if kind == "cpu" else NVCC_FLAGS).encode())
    return digest.hexdigest()[:16]


def cache_folder(sources: Path) -> Path:
    """Return the folder for libraries of exactly these sources, for users without write access to the package."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return root / "maskrcnn_benchmark" / f"ops-{source_hash('cpu', sources)}-{source_hash('cuda', sources)}"


def read_report(folder: Path) -> dict:
    """Return the last build's report in this folder: {"cpu": {"hash" or "error", ...}, "cuda": ...}; {} if none."""
    try:
        return json.loads((folder / REPORT).read_text())
    except (OSError, ValueError):
        return {}


def find_torch() -> Torch:
    """Return the first torch on the environment's path. Raises BuildError if there is none to build against."""
    for folder in _site_folders():
        version_file = folder / "torch" / "version.py"
        if not version_file.is_file():
            continue
        text = version_file.read_text()
        version = _assigned(text, "__version__")
        if version is None:
            continue
        if tuple(int(part) for part in re.findall(r"\d+", version)[:2]) < OLDEST_TORCH:
            raise BuildError(f"torch {version} in {folder} is too old: 2.11 or newer is required")
        if not (folder / "torch" / "include" / "torch" / "csrc" / "stable" / "library.h").is_file():
            raise BuildError(f"torch {version} in {folder} comes without its C++ headers")
        return Torch(folder / "torch", version, _assigned(text, "cuda"))
    raise BuildError("torch is not installed in this environment")


def _assigned(text: str, name: str) -> str | None:
    found = re.search(rf"^{name}\b[^=\n]*=\s*'([^']+)'", text, re.MULTILINE)
    return found.group(1) if found else None


def _site_folders() -> list[Path]:
    """Return folders that may contain the user's packages, as far as they are visible in pip's build sandbox.

    sysconfig still names the environment's own folders; sys.path no longer does.
    """
    folders = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), *sys.path]
    python = f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
    if os.environ.get("VIRTUAL_ENV"):
        folders.append(os.path.join(os.environ["VIRTUAL_ENV"], python))
    config = Path(sys.prefix) / "pyvenv.cfg"
    if sys.prefix == sys.base_prefix or "include-system-site-packages = true" in _text(config).lower():
        base = {"base": sys.base_prefix, "platbase": sys.base_exec_prefix}
        folders += [sysconfig.get_path("purelib", vars=base), sysconfig.get_path("platlib", vars=base)]
        folders += [site.getusersitepackages(), *site.getsitepackages([sys.base_prefix])]
    unique = dict.fromkeys(Path(folder) for folder in folders if folder)
    for folder in list(unique):
        for link in sorted(folder.glob("*.pth")):
            for line in _text(link).splitlines():
                if line.strip() and not line.startswith(("#", "import")):
                    unique[folder / line.strip()] = None
    return list(unique)


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _find_program(names: tuple[str, ...], folders: tuple[str | Path | None, ...] = ()) -> str | None:
    path = os.pathsep.join([os.environ.get("PATH", ""), *(str(folder) for folder in folders if folder)])
    return next((found for name in names if (found := shutil.which(name, path=path))), None)


def find_compiler() -> str:
    given = os.environ.get("CXX")
    names = (shlex.split(given)[0],) if given else ("c++", "g++", "clang++")
    found = _find_program(names)
    if found is None:
        raise BuildError(f"no C++ compiler: looked for {', '.join(names)} on PATH (to get one: apt install g++)")
    return shlex.join([found, *shlex.split(given)[1:]]) if given else shlex.quote(found)


def find_ninja() -> str:
    # A virtual environment that is not activated has its programs beside its python, not on PATH.
    folders = (sysconfig.get_path("scripts"), Path(sys.executable).parent)
    found = _find_program(("ninja", "ninja-build"), folders)
    if found is None:
        raise BuildError("ninja is not installed (to get it: pip install ninja)")
    return shlex.quote(found)


def find_nvcc(torch: Torch) -> str:
    """Return nvcc, or raise a BuildError with the reason why the CUDA kernels are not built."""
    choice = os.environ.get("BUILD_CUDA", "auto").strip().lower()
    if choice not in ("0", "1", "auto"):
        raise BuildError(f"BUILD_CUDA is {choice!r}; expected 0, 1 or auto")
    if choice == "0":
        raise BuildError("not requested (BUILD_CUDA=0)")
    if torch.cuda is None:
        raise BuildError(f"torch {torch.version} is built without CUDA")
    homes = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda"]
    found = (shutil.which("nvcc", path=os.path.join(home, "bin")) for home in homes if home)
    nvcc = next((path for path in found if path), None) or shutil.which("nvcc")
    if nvcc is None:
        raise BuildError("no nvcc: looked in $CUDA_HOME, /usr/local/cuda and on PATH")
    if choice == "auto":
        if not gpu_is_present() and not os.environ.get("TORCH_CUDA_ARCH_LIST"):
            raise BuildError("no GPU in this machine (to build them anyway, set BUILD_CUDA=1)")
        release = re.search(r"release (\d+)", _output([nvcc, "--version"]))
        if release and int(release.group(1)) > int(torch.cuda.split(".")[0]):
            raise BuildError(
                f"nvcc is of CUDA {release.group(1)}, torch of CUDA {torch.cuda}: the driver may be too old for the "
                f"output of this nvcc (point CUDA_HOME to a CUDA {torch.cuda}, or set BUILD_CUDA=1 to build anyway)"
            )
    return nvcc


def gpu_is_present() -> bool:
    """Detect an NVIDIA GPU by its driver's files, WSL's device, or nvidia-smi."""
    drivers = Path("/proc/driver/nvidia/gpus")
    if (drivers.is_dir() and any(drivers.iterdir())) or Path("/dev/nvidia0").exists() or Path("/dev/dxg").exists():
        return True
    return bool(_gpu_capabilities())


def _gpu_capabilities() -> list[str]:
    if shutil.which("nvidia-smi") is None:
        return []
    lines = _output(["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"]).split()
    return sorted({line for line in lines if re.fullmatch(r"\d+\.\d+", line)}, key=_as_number)


def _output(command: list[str]) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=60).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""


def _as_number(architecture: str) -> int:
    return int(re.sub(r"\D", "", architecture))


def architecture_flags(nvcc: str) -> str:
    """Return nvcc's -gencode flags. Raises BuildError if this nvcc does not support TORCH_CUDA_ARCH_LIST."""
    known = {int(number) for number in re.findall(r"\d+", _output([nvcc, "--list-gpu-code"]))}
    given = [word for word in re.split(r"[;,\s]+", os.environ.get("TORCH_CUDA_ARCH_LIST", "")) if word]
    if given:
        for word in given:
            if not re.fullmatch(r"\d+\.\d[af]?(\+PTX)?", word):
                raise BuildError(f"TORCH_CUDA_ARCH_LIST has {word!r}; expected numbers such as '8.0;9.0+PTX'")
        chosen = [word.removesuffix("+PTX") for word in given]
        with_ptx = [word.removesuffix("+PTX") for word in given if word.endswith("+PTX")]
    else:
        # A GPU newer than this nvcc runs the PTX of the newest architecture that nvcc supports.
        listed = [name for name in _gpu_capabilities() if _as_number(name) in known]
        chosen = listed or [name for name in ARCHITECTURES if not known or _as_number(name) in known]
        with_ptx = chosen[-1:]
    numbers = [name.replace(".", "") for name in chosen]
    flags = [f"-gencode=arch=compute_{number},code=sm_{number}" for number in numbers]
    flags += [f"-gencode=arch=compute_{n.replace('.', '')},code=compute_{n.replace('.', '')}" for n in with_ptx]
    return " ".join(flags)


def compile_library(kind: str, sources: Path, torch: Torch, target: Path) -> str:
    """Build one library into the folder `target` and return the log. Raises BuildError with the reason from the log."""
    ninja = find_ninja()
    cxx = find_compiler()
    link_flags = torch.links
    if kind == "cpu":
        compiler, flags, pattern = cxx, f"{CXX_FLAGS} {torch.flags}", "*.cpp"
        files = [sources / "ops.cpp", *sorted((sources / "cpu").glob(pattern))]
        link = f"{cxx} -shared $in -o $out {link_flags}"
    else:
        nvcc = find_nvcc(torch)
        compiler, files = shlex.quote(nvcc), sorted((sources / "cuda").glob("*.cu"))
        flags = f"{NVCC_FLAGS} {architecture_flags(nvcc)} -ccbin {cxx} {torch.flags}"
        link = f"{compiler} -shared $in -o $out -ccbin {cxx} {link_flags} -ltorch_cuda"
    with tempfile.TemporaryDirectory() as scratch:
        rules = ["rule compile", f"  command = {compiler} {flags} -c $in -o $out", "rule link", f"  command = {link}"]
        objects = [f"{path.stem}.o" for path in files]
        rules += [f"build {obj}: compile {_ninja_path(path)}" for obj, path in zip(objects, files, strict=True)]
        rules.append(f"build {LIBRARIES[kind]}: link {' '.join(objects)}")
        (Path(scratch) / "build.ninja").write_text("\n".join(rules) + "\n")
        jobs = ["-j", os.environ["MAX_JOBS"]] if os.environ.get("MAX_JOBS") else []
        command = [*shlex.split(ninja), "-C", scratch, "-v", *jobs]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
        if done.returncode != 0:
            raise BuildError(f"the compiler failed:\n{done.stdout}")
        # A running program may have the old library mapped. It keeps the old file, and the new one takes its name.
        fresh = target / f".{LIBRARIES[kind]}.{os.getpid()}"
        shutil.copy(Path(scratch) / LIBRARIES[kind], fresh)
        os.replace(fresh, target / LIBRARIES[kind])
    return done.stdout


def _ninja_path(path: Path) -> str:
    return re.sub(r"([$: ])", r"$\1", str(path))


def build(target: Path | None = None, sources: Path | None = None, if_changed: bool = False) -> dict:
    """Build what can be built, and write and return the report. A failed build is reported, not raised.

    Args:
        target: folder for libraries, report and log; default: the package, or the user's cache if that is read-only.
        sources: csrc; default: that of the package.
        if_changed: skip a library whose sources, flags and torch are unchanged since it was built.
    """
    report: dict = {"python": sys.executable, "platform": platform.platform()}
    log: list[str] = []
    try:
        sources = sources or source_folder()
        target = target or (PACKAGE if os.access(PACKAGE, os.W_OK) else cache_folder(sources))
        target.mkdir(parents=True, exist_ok=True)
    except (BuildError, OSError) as error:
        return report | {kind: {"error": str(error)} for kind in LIBRARIES}
    previous = read_report(target)
    for kind, library in LIBRARIES.items():
        report[kind] = {}
        try:
            report[kind]["hash"] = source_hash(kind, sources)
            torch = find_torch()
            report[kind]["torch"] = torch.version
            before = previous.get(kind, {})
            same = all(before.get(key) == report[kind][key] for key in ("hash", "torch")) and "error" not in before
            if kind == "cuda":
                find_nvcc(torch)
            if if_changed and same and (target / library).is_file():
                continue
            log.append(compile_library(kind, sources, torch, target))
        except (BuildError, OSError, subprocess.SubprocessError) as error:
            reason, _, output = str(error).partition("\n")
            log.append(f"{library} was not built: {error}")
            report[kind]["error"] = f"{reason} {_first_error(output)}".strip() if output else reason
    try:
        (target / REPORT).write_text(json.dumps(report, indent=1) + "\n")
        if log:
            (target / LOG).write_text("\n".join(log) + "\n")
    except OSError as error:
        print(f"cannot write the build's report to {target}: {error}", file=sys.stderr)
    return report | {"folder": str(target)}


def _first_error(output: str) -> str:
    """Return the first error line of the output of compiler and linker."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    telling = (line for line in lines if re.search(r"error:|undefined reference|cannot find", line))
    return next(telling, lines[-1] if lines else "")


def describe(report: dict) -> str:
    """Describe each library in one line."""
    folder = report.get("folder", "?")
    lines = []
    for kind, library in LIBRARIES.items():
        error = report[kind].get("error")
        name = f"{kind.upper()} kernels"
        lines.append(f"{name}: not built: {error}" if error else f"{name}: {Path(folder) / library}")
    if "error" in report["cpu"]:
        lines.append(f"Until they are built, every op runs on slower PyTorch code. To build them: {COMMAND}")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--if-changed", action="store_true", help="skip what is up to date")
    report = build(if_changed=parser.parse_args().if_changed)
    print(describe(report))
    return 1 if "error" in report["cpu"] else 0


if __name__ == "__main__":
    sys.exit(main())
