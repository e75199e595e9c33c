import os
import socket

import pytest

from maskrcnn_benchmark.utils.text_file import NotAFileError, did_you_mean, open_regular, read_text


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be"])
def test_unicode_encodings_are_read_with_and_without_mark(tmp_path, encoding):
    path = tmp_path / "a.json"
    path.write_bytes('{"name": "Waschbär 浣熊"}'.encode(encoding))
    assert read_text(path) == '{"name": "Waschbär 浣熊"}'


def test_other_encodings_are_refused_with_position_and_remedy(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes("ein Waschbär\n".encode("cp1252"))
    with pytest.raises(
        ValueError, match=r"a.txt is not UTF-8 text: byte 0xe4 at position 10, .*Save the file as UTF-8"
    ):
        read_text(path)


@pytest.mark.parametrize("kind", ["folder", "pipe", "socket", "device"])
def test_special_files_are_refused_without_waiting(tmp_path, kind):
    path = tmp_path / "x"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
    else:
        path = "/dev/zero"
    with pytest.raises(NotAFileError, match=f"is a .*{kind}.*; a regular file is required"):
        open_regular(path)


def test_nearest_path_in_the_folder_or_above_it(tmp_path):
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "instances_train.json").touch()
    assert did_you_mean(tmp_path / "annotations" / "instance_train.json").endswith("instances_train.json.")
    assert did_you_mean(tmp_path / "anotations" / "instances_train.json").endswith("/annotations.")
    assert did_you_mean(tmp_path / "annotations" / "zzz") == ""
