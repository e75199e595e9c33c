"""Start processes that have imported torch and the package already.

They are forked from one process that imports and does nothing else (multiprocessing's forkserver). A process of its own
imports for two to three seconds, which is most of what a tool takes on tiny data.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from multiprocessing import forkserver
from pathlib import Path
from unittest import mock

ROOT = Path(__file__).resolve().parents[2]
# These import what the tools need, and what helpers.processes runs.
_IMPORTED = [
    "helpers.distributed_cases",
    "maskrcnn_benchmark.engine.testing",
    "maskrcnn_benchmark.profiling.plot",
    "maskrcnn_benchmark.profiling.subjects",
    "maskrcnn_benchmark.solver",
    "torch._dynamo",  # every optimizer imports it
    "torch.utils.tensorboard",  # every training does, if it is installed
]


def start_server() -> None:
    """Start the process that all others are forked from, if it does not run yet."""
    multiprocessing.set_forkserver_preload(_IMPORTED)
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])
    with mock.patch.dict(os.environ, OMP_NUM_THREADS="1", PYTHONPATH=paths):
        forkserver.ensure_running()


class Script:
    """A script that runs in a process of its own, started as `python words[0] words[1:]` would start it.

    Args:
        words: path of the script, and its arguments.
        cwd: folder to run in.
        variables: environment variables besides those of this process.
    """

    def __init__(self, words, cwd: str | os.PathLike, variables: Mapping[str, str] | None = None):
        start_server()
        self.words = [str(word) for word in words]
        self._outputs = tempfile.TemporaryDirectory()
        environment = {**os.environ, "OMP_NUM_THREADS": "1", **(variables or {})}
        self._process = multiprocessing.get_context("forkserver").Process(
            target=_become_script, args=(self.words, str(cwd), environment, self._outputs.name)
        )
        self._process.start()

    def running(self) -> bool:
        return self._process.exitcode is None

    def kill(self) -> None:
        self._process.kill()

    def wait(self, timeout: float = 300) -> subprocess.CompletedProcess:
        """Wait for its end, and return what `subprocess.run` returns: exit status, stdout and stderr."""
        self._process.join(timeout)
        if self.running():
            self.kill()
            raise subprocess.TimeoutExpired(self.words, timeout)
        with self._outputs as folder:
            stdout, stderr = (Path(folder, name).read_text() for name in ("stdout", "stderr"))
        return subprocess.CompletedProcess(self.words, self._process.exitcode, stdout, stderr)


def run_ranks(count: int, words, cwd: str | os.PathLike) -> subprocess.CompletedProcess:
    """Run a script in `count` processes with the environment that torchrun would give them; return rank 0's outcome.

    Raises:
        RuntimeError: another rank failed.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)}
    shared |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    scripts = [Script(words, cwd, {**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}) for rank in range(count)]
    first, *others = [script.wait() for script in scripts]
    for rank, other in enumerate(others, start=1):
        if other.returncode and not first.returncode:
            raise RuntimeError(f"rank {rank} ended with status {other.returncode}: {other.stderr}")
    return first


def _become_script(words: list[str], cwd: str, environment: dict[str, str], outputs: str) -> None:
    multiprocessing.set_start_method(None, force=True)  # the script's own workers start as they always do
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    for number, name in ((1, "stdout"), (2, "stderr")):
        file = os.open(os.path.join(outputs, name), os.O_WRONLY | os.O_CREAT)
        os.dup2(file, number)
        os.close(file)
    sys.argv, sys.orig_argv = words, [sys.executable, *words]
    sys.path.insert(0, os.path.dirname(words[0]))
    runpy.run_path(words[0], run_name="__main__")
