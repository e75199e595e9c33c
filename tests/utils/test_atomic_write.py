import json
import os
import subprocess
import sys
import textwrap
import time

import pytest

from maskrcnn_benchmark.utils import atomic_write as atomic_write_module
from maskrcnn_benchmark.utils.atomic_write import atomic_write, remove_left_over, write_json


def test_the_new_file_replaces_the_old_one(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with atomic_write(path) as file:
        file.write(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new" and os.listdir(tmp_path) == ["file"]


def test_a_relative_path_is_written_in_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with atomic_write("file") as file:
        file.write(b"here")
    assert (tmp_path / "file").read_bytes() == b"here"


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt, TypeError])
def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path, error):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(error):
        with atomic_write(path) as file:
            file.write(b"half of the n")
            raise error
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failing_disk_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, step):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def fails(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, step, fails)
    with pytest.raises(OSError, match="No space left"):
        with atomic_write(path) as file:
            file.write(b"new")
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["file"]


WRITES = """
    import os, signal, sys
    from maskrcnn_benchmark.utils.atomic_write import atomic_write
    with atomic_write(sys.argv[1]) as file:
        file.write(b"half"); file.flush()
        print("writing", flush=True)
        sys.stdin.read(1)
        file.write(b" and half")
"""


@pytest.fixture
def writer(tmp_path):
    """A process that has written half of model.pth; it writes the rest once its input is closed."""
    command = [sys.executable, "-c", textwrap.dedent(WRITES), str(tmp_path / "model.pth")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"writing\n"
        yield process
        process.kill()


def test_temporary_files_of_a_killed_process_are_removed(tmp_path, writer):
    path = tmp_path / "model.pth"
    path.write_bytes(b"old")
    writer.kill()
    writer.wait()
    assert path.read_bytes() == b"old" and len(os.listdir(tmp_path)) == 2
    with atomic_write(tmp_path / "other.pth") as file:
        file.write(b"new")
    assert path.read_bytes() == b"old" and sorted(os.listdir(tmp_path)) == ["model.pth", "other.pth"]


def test_the_temporary_file_of_a_running_process_stays(tmp_path, writer):
    pytest.importorskip("fcntl")
    path = tmp_path / "model.pth"
    with atomic_write(path) as file:
        file.write(b"new")
    remove_left_over(tmp_path)
    assert path.read_bytes() == b"new" and len(os.listdir(tmp_path)) == 2
    writer.communicate()
    assert writer.returncode == 0 and path.read_bytes() == b"half and half" and os.listdir(tmp_path) == ["model.pth"]


def test_one_process_may_write_a_file_twice_at_once(tmp_path):
    path = tmp_path / "file"
    with atomic_write(path) as first:
        first.write(b"first")
        remove_left_over(tmp_path)
        with atomic_write(path) as second:
            second.write(b"second")
        assert path.read_bytes() == b"second"
    assert path.read_bytes() == b"first" and os.listdir(tmp_path) == ["file"]


def left_by(folder, host: str, age: float) -> str:
    """Make a temporary file of a process that has ended, and return its name."""
    name = f".model.pth.{host}.{os.urandom(8).hex()}.tmp"
    (folder / name).write_bytes(b"half")
    os.utime(folder / name, (time.time() - age,) * 2)
    return name


def test_files_of_other_machines_are_left_over_after_a_day(tmp_path):
    pytest.importorskip("fcntl")
    here = atomic_write_module._host()
    left_by(tmp_path, here, 0), left_by(tmp_path, here, 2 * 86_400), left_by(tmp_path, "elsewhere", 2 * 86_400)
    fresh = left_by(tmp_path, "elsewhere", 3_600)
    others = [".model.pth.tmp", ".model.pth.5.tmp", "notes.tmp"]
    for name in others:
        (tmp_path / name).write_bytes(b"")
    remove_left_over(tmp_path)
    assert sorted(os.listdir(tmp_path)) == sorted([fresh, *others])


def test_without_locks_files_are_left_over_after_a_day(tmp_path, monkeypatch):
    fcntl = pytest.importorskip("fcntl")

    def fails(*args):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", fails)
    here = atomic_write_module._host()
    fresh, _ = left_by(tmp_path, here, 3_600), left_by(tmp_path, here, 2 * 86_400)
    with atomic_write(tmp_path / "file") as file:
        file.write(b"new")
    assert sorted(os.listdir(tmp_path)) == sorted([fresh, "file"])


def test_a_file_that_is_removed_before_it_is_locked_is_made_again(tmp_path, monkeypatch):
    lock, calls = atomic_write_module._lock, []

    def beaten(handle):
        calls.append(handle)
        if len(calls) == 1:
            remove_left_over(tmp_path)  # has the file, which nobody has locked yet
        if len(calls) == 4:
            raise BlockingIOError
        return lock(handle)

    monkeypatch.setattr(atomic_write_module, "_lock", beaten)
    for content in (b"one", b"two"):
        with atomic_write(tmp_path / "file") as file:
            file.write(content)
        assert (tmp_path / "file").read_bytes() == content


def test_a_folder_is_searched_once(tmp_path, monkeypatch):
    searched = []
    monkeypatch.setattr(atomic_write_module, "remove_left_over", searched.append)
    for name in ("a", "b", "c"):
        with atomic_write(tmp_path / name) as file:
            file.write(b"new")
    assert searched == [str(tmp_path)]


@pytest.mark.parametrize("name", ["a" * 255, "ü" * 127, "a b\nc", "-", ".hidden"])
def test_any_name_may_be_written(tmp_path, name):
    with atomic_write(tmp_path / name) as file:
        file.write(b"new")
    assert os.listdir(tmp_path) == [name]


def test_json_is_written_completely_or_not_at_all(tmp_path):
    path = tmp_path / "figures.json"
    write_json(path, {"AP": 0.5})
    assert json.loads(path.read_text()) == {"AP": 0.5}
    with pytest.raises(ValueError):
        write_json(path, {"AP": float("nan")})
    assert json.loads(path.read_text()) == {"AP": 0.5} and len(list(tmp_path.iterdir())) == 1
