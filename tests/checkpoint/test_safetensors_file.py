import json
import struct

import pytest
import torch

from maskrcnn_benchmark.checkpoint.safetensors_file import is_safetensors, read_safetensors, write_safetensors


def written(path, header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def test_a_handwritten_file_is_read(tmp_path):
    header = {
        "__metadata__": {"format": "pt"},
        "a": {"dtype": "F32", "shape": [2, 2], "data_offsets": [2, 18]},
        "b": {"dtype": "BF16", "shape": [], "data_offsets": [0, 2]},
        "none": {"dtype": "I64", "shape": [0, 3], "data_offsets": [18, 18]},
    }
    path = written(tmp_path / "x.safetensors", header, b"\x80\x3f" + struct.pack("<4f", 1, 2, 3, 4))
    assert is_safetensors(path)
    tensors = read_safetensors(path)
    assert tensors["a"].tolist() == [[1, 2], [3, 4]] and tensors["none"].shape == (0, 3)
    assert tensors["b"].dtype == torch.bfloat16 and tensors["b"] == 1 and list(tensors) == ["a", "b", "none"]


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.bool]
)
def test_written_tensors_are_read_back(tmp_path, dtype, rng_seed):
    turned = (torch.randn(3, 5) * 9).to(dtype).T
    tensors = {"x/y.weight": turned, "count": torch.tensor(7).to(dtype), "none": torch.empty(0, 2)}
    write_safetensors(tmp_path / "x.safetensors", tensors)
    again = read_safetensors(tmp_path / "x.safetensors")
    assert list(again) == list(tensors)
    assert all(torch.equal(again[name], tensors[name]) and again[name].dtype == tensors[name].dtype for name in tensors)
    length = struct.unpack("<Q", (tmp_path / "x.safetensors").read_bytes()[:8])[0]
    assert length % 8 == 0


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"dtype": "F32", "shape": [2], "data_offsets": [0, 16]}, "'a': shape"),
        ({"dtype": "F32", "shape": [2], "data_offsets": [4, 12]}, "'a': shape"),
        ({"dtype": "F32", "shape": [-1, -2], "data_offsets": [0, 8]}, "'a': shape"),
        ({"dtype": "F8_E4M3", "shape": [8], "data_offsets": [0, 8]}, "dtype F8_E4M3 is not supported"),
        ({"shape": [2]}, "'a'"),
        (None, "'a'"),
    ],
)
def test_damaged_entries_are_named(tmp_path, entry, message):
    with pytest.raises(ValueError, match=message):
        read_safetensors(written(tmp_path / "x", {"a": entry}, bytes(8)))


def test_other_files_are_recognised(tmp_path):
    torch.save({"a": torch.ones(1)}, tmp_path / "a.pth")
    (tmp_path / "short").write_bytes(b"12")
    written(tmp_path / "cut", b"{" * 50)
    (tmp_path / "cut").write_bytes((tmp_path / "cut").read_bytes()[:30])
    assert not any(is_safetensors(tmp_path / name) for name in ("a.pth", "short", "cut", "absent"))
    with pytest.raises(ValueError, match="not JSON"):
        read_safetensors(written(tmp_path / "broken", b"{broken"))


def test_unsupported_dtypes_are_refused(tmp_path):
    with pytest.raises(TypeError, match="'z' is torch.complex64"):
        write_safetensors(tmp_path / "x.safetensors", {"z": torch.ones(1, dtype=torch.complex64)})
    assert not list(tmp_path.iterdir())
