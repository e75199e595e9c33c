import json
import os
import subprocess
import sys
import textwrap

import pytest

from maskrcnn_benchmark.utils.atomic_write import atomic_write, write_json


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


def test_temporary_files_of_a_killed_process_are_removed(tmp_path):
    code = """
        import os, signal, sys
        from maskrcnn_benchmark.utils.atomic_write import atomic_write, write_json
        with atomic_write(sys.argv[1]) as file:
            file.write(b"half"); file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
    """
    path = tmp_path / "model.pth"
    path.write_bytes(b"old")
    subprocess.run([sys.executable, "-c", textwrap.dedent(code), str(path)], check=False)
    assert path.read_bytes() == b"old" and len(os.listdir(tmp_path)) == 2
    with atomic_write(path) as file:
        file.write(b"new")
    assert path.read_bytes() == b"new" and os.listdir(tmp_path) == ["model.pth"]


def test_json_is_written_completely_or_not_at_all(tmp_path):
    path = tmp_path / "figures.json"
    write_json(path, {"AP": 0.5})
    assert json.loads(path.read_text()) == {"AP": 0.5}
    with pytest.raises(ValueError):
        write_json(path, {"AP": float("nan")})
    assert json.loads(path.read_text()) == {"AP": 0.5} and len(list(tmp_path.iterdir())) == 1
