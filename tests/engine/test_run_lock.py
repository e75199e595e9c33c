import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
from conftest import ROOT

from maskrcnn_benchmark.engine import run_lock
from maskrcnn_benchmark.engine.run_lock import FILE_NAME, FolderInUse, RunLock

HOLD = """
import sys, time
from maskrcnn_benchmark.engine.run_lock import RunLock
lock = RunLock(sys.argv[1])
print("held", flush=True)
time.sleep(100)
"""


@pytest.fixture(autouse=True)
def settled_soon(monkeypatch):
    monkeypatch.setattr(run_lock, "SETTLE", 0.05)


@pytest.fixture
def holder(tmp_path):
    """Start another process that holds the lock of `tmp_path`."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def of_another_machine(folder, **changes) -> None:
    """Change the lock in the folder to one of another machine."""
    path = folder / FILE_NAME
    path.write_text(
        json.dumps({**json.loads(path.read_text()), "machine": "elsewhere", "host": "elsewhere", **changes})
    )


def test_second_training_is_refused_with_the_owner_in_the_message(tmp_path, holder):
    with pytest.raises(FolderInUse) as error:
        RunLock(str(tmp_path))
    assert f"process {holder.pid} on {socket.gethostname()}, since 20" in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == [FILE_NAME]


@pytest.mark.parametrize("reaped", [True, False])
def test_lock_of_a_killed_process_is_ignored(tmp_path, holder, caplog, reaped):
    caplog.set_level(logging.INFO)
    os.kill(holder.pid, signal.SIGKILL)
    if reaped:
        holder.wait()
    else:  # a zombie still has its process number
        os.waitid(os.P_PID, holder.pid, os.WEXITED | os.WNOWAIT)
    with RunLock(str(tmp_path)):
        assert json.loads((tmp_path / FILE_NAME).read_text())["process"] == os.getpid()
    assert f"Ignoring the lock of process {holder.pid}" in caplog.text
    assert list(tmp_path.iterdir()) == []


def test_another_process_with_the_same_number_is_not_the_owner(tmp_path, holder):
    path = tmp_path / FILE_NAME
    path.write_text(json.dumps({**json.loads(path.read_text()), "started": "1"}))
    RunLock(str(tmp_path)).release()


def test_lock_of_another_machine_counts_while_it_is_touched(tmp_path, monkeypatch):
    monkeypatch.setattr(run_lock, "_POLL", 0.01)
    with RunLock(str(tmp_path)):
        of_another_machine(tmp_path)
        path = tmp_path / FILE_NAME
        threading.Timer(0.05, os.utime, [path, (1, time.time() + 1)]).start()
        with pytest.raises(FolderInUse, match="on elsewhere"):
            RunLock(str(tmp_path))


@pytest.mark.parametrize("age", [0, 1000])
def test_untouched_lock_of_another_machine_is_ignored(tmp_path, monkeypatch, age):
    monkeypatch.setattr(run_lock, "_POLL", 0.01)
    monkeypatch.setattr(run_lock, "STALE", 0.1 if age == 0 else 500)
    first = RunLock(str(tmp_path))
    of_another_machine(tmp_path, token="other")
    os.utime(tmp_path / FILE_NAME, (time.time() - age,) * 2)
    with RunLock(str(tmp_path)):
        first.release()  # must not remove the lock, which belongs to another process now
        assert (tmp_path / FILE_NAME).exists()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"process": "x", "machine": 3}'])
def test_damaged_lock_is_ignored_once_it_is_old(tmp_path, content):
    (tmp_path / FILE_NAME).write_text(content)
    os.utime(tmp_path / FILE_NAME, (1, 1))
    RunLock(str(tmp_path)).release()


def test_owner_touches_its_lock_and_notices_when_it_is_taken(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(run_lock, "BEAT", 0.01)
    with RunLock(str(tmp_path)):
        path = tmp_path / FILE_NAME
        os.utime(path, (1, 1))
        wait_until(lambda: path.stat().st_mtime > 1)
        of_another_machine(tmp_path, token="other")
        wait_until(lambda: "another one has started in the same OUTPUT_DIR" in caplog.text)
    assert path.exists()


def wait_until(condition) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_only_one_of_many_concurrent_takeovers_succeeds(tmp_path):
    (tmp_path / FILE_NAME).write_text(json.dumps({"machine": run_lock._machine(), "process": 1, "started": "never"}))
    held, refused = [], []

    def take():
        try:
            held.append(RunLock(str(tmp_path)))
        except FolderInUse:
            refused.append(True)

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(held), len(refused)) == (1, 7)
    held[0].release()


def test_disk_without_hard_links(tmp_path, monkeypatch):
    def refuse(*_paths):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(run_lock.os, "link", refuse)
    with RunLock(str(tmp_path)), pytest.raises(FolderInUse):
        RunLock(str(tmp_path))
    assert list(tmp_path.iterdir()) == []
