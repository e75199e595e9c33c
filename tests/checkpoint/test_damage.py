"""Damaged files: every flipped bit is detected or has no effect, and resuming uses the newest undamaged checkpoint."""

import os
import random
import struct
import zipfile

import pytest
import torch

from maskrcnn_benchmark.checkpoint.checkpointer import Checkpointer, read_checkpoint
from maskrcnn_benchmark.checkpoint.files import MARK, write_checkpoint
from maskrcnn_benchmark.checkpoint.safe_unpickle import check_sound, load_pickled
from maskrcnn_benchmark.checkpoint.safetensors_file import read_safetensors, write_safetensors
from tools.remove_solver_states import remove_solver_states


def make_model():
    return torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3), torch.nn.Linear(3, 1))


def flipped(content, bit):
    damaged = bytearray(content)
    damaged[bit // 8] ^= 1 << bit % 8
    return bytes(damaged)


def same(first, second):
    if isinstance(first, torch.Tensor):
        return torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[key], second[key]) for key in first)
    return first == second


@pytest.mark.parametrize("file_format", ["torch", "safetensors"])
def test_a_flipped_bit_is_detected_or_has_no_effect(rng_seed, tmp_path, file_format):
    path = tmp_path / "model.pth"
    data = {"a.weight": torch.rand(40, 3), "a.bias": torch.arange(7), "none": torch.zeros(0, 2)}
    if file_format == "torch":
        data = {"model": data, "iteration": 7}
        write_checkpoint(path, data)
        read = load_pickled
    else:
        write_safetensors(path, data)
        read = read_safetensors
    content = path.read_bytes()
    draw = random.Random(rng_seed)
    noticed = 0
    for _ in range(250):
        bit = draw.randrange(8 * len(content))
        path.write_bytes(flipped(content, bit))
        try:
            loaded = read(path)
        except ValueError as error:
            assert str(path) in str(error) and len(str(error)) < 3000
            noticed += 1
        else:
            assert same(data, loaded), f"bit {bit} changed what was read, without an error"
    assert noticed > 100


def test_every_damaged_byte_of_the_numbers_is_detected(rng_seed, tmp_path):
    path = tmp_path / "model.pth"
    weight = torch.rand(50)
    write_checkpoint(path, {"model": {"weight": weight}})
    content = path.read_bytes()
    start = content.index(weight.numpy().tobytes())
    for byte in range(start, start + 200):
        path.write_bytes(flipped(content, 8 * byte + byte % 8))
        with pytest.raises(ValueError, match=r"model\.pth is damaged.*copy or download it again"):
            load_pickled(path)


def test_checksums_are_written_even_if_the_process_has_disabled_them(tmp_path, caplog):
    caplog.set_level("INFO")
    torch.serialization.set_crc32_options(False)
    try:
        write_checkpoint(tmp_path / "ours.pth", {"model": {"weight": torch.ones(5)}})
        torch.save({"weight": torch.ones(5)}, tmp_path / "foreign.pth")
        assert not torch.serialization.get_crc32_options()
    finally:
        torch.serialization.set_crc32_options(True)
    load_pickled(tmp_path / "ours.pth")
    assert "checksums" not in caplog.text
    assert load_pickled(tmp_path / "foreign.pth")["weight"].sum() == 5
    assert "foreign.pth has no checksums: damaged numbers can't be detected" in caplog.text


def break_directory(content, name):
    place = content.rindex(b"PK\x01\x02", 0, content.rindex(b"PK\x05\x06"))
    return {
        "compression": content[: place + 10] + b"\x63" + content[place + 11 :],
        "encrypted": content[: place + 8] + b"\x09\x08" + content[place + 10 :],
        "name": content[: place + 46] + b"\xff\xfe" + content[place + 48 :],
        "zip64": content[: place + 20] + b"\xff" * 8 + content[place + 28 :],
        "zeroed head": bytes(4) + content[4:],
        "zeroed page": bytes(4096) + content[4096:],
        "zeroed end": content[:-22] + bytes(22),
        "comment": content[:-2] + b"\x05\x00hello",
        "text": b"nothing",
    }[name]


DAMAGES = ["compression", "encrypted", "name", "zip64", "zeroed head", "zeroed page", "zeroed end", "comment", "text"]


@pytest.fixture
def run_folder(tmp_path):
    """Create a folder with checkpoints of iterations 1, 2 and 3; last_checkpoint names the last one."""
    checkpointer = Checkpointer(make_model(), save_dir=str(tmp_path), save_to_disk=True)
    for iteration in (1, 2, 3):
        checkpointer.save(f"model_{iteration:07d}", iteration=iteration)
    return tmp_path


@pytest.mark.parametrize("damage", [*DAMAGES, "flip", "fifo", "folder", "link to itself"])
def test_resuming_falls_back_to_the_newest_undamaged_checkpoint(run_folder, caplog, damage):
    newest = run_folder / "model_0000003.pth"
    content = newest.read_bytes()
    newest.unlink()
    if damage == "fifo":
        os.mkfifo(newest)
    elif damage == "folder":
        newest.mkdir()
    elif damage == "link to itself":
        newest.symlink_to(newest)
    elif damage == "flip":
        place = content.index(b"data/0", content.index(b"data.pkl") + 200) + 80
        newest.write_bytes(flipped(content, 8 * place + 3))
    else:
        newest.write_bytes(break_directory(content, damage))
    assert Checkpointer(make_model(), save_dir=str(run_folder)).load()["iteration"] == 2
    assert "model_0000003.pth" in caplog.text and "falling back to" in caplog.text


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_given_damaged_file_is_refused_with_its_name(run_folder, damage):
    path = run_folder / "model_0000003.pth"
    path.write_bytes(break_directory(path.read_bytes(), damage))
    with pytest.raises(ValueError, match=r"model_0000003\.pth"):
        Checkpointer(make_model()).load(str(path))


@pytest.mark.parametrize(
    "tag",
    [
        b"",
        b"\0",
        b"model\0.pth",
        b"\xff\xfe\x00",
        bytes(5000),
        b"x" * 100_000,
        b"a/" * 3000,
        b"\n\n",
        "fifo",
        "folder",
        "loop",
    ],
)
def test_an_unreadable_last_checkpoint_falls_back(run_folder, caplog, tag):
    path = run_folder / "last_checkpoint"
    path.unlink()
    if tag == "fifo":
        os.mkfifo(path)
    elif tag == "folder":
        path.mkdir()
    elif tag == "loop":
        os.mkfifo(run_folder / "pipe")
        path.write_text(str(run_folder / "pipe"))
    else:
        path.write_bytes(tag)
    assert Checkpointer(make_model(), save_dir=str(run_folder)).load()["iteration"] == 3
    assert "falling back to" in caplog.text and len(caplog.records[-1].getMessage()) < 2000


def test_without_an_undamaged_checkpoint_the_error_names_the_cause(run_folder):
    for path in run_folder.glob("*.pth"):
        path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(FileNotFoundError, match=r"model_0000003\.pth.*end is missing.*remove last_checkpoint"):
        Checkpointer(make_model(), save_dir=str(run_folder)).load()


def rewritten(path, change):
    checkpoint = torch.load(path, weights_only=True)
    change(checkpoint)
    torch.save(checkpoint, path)


def rename(checkpoint):
    checkpoint["model"]["0.weighu"] = checkpoint["model"].pop("0.weight")


def forget_mark(checkpoint):
    rename(checkpoint)
    del checkpoint[MARK]


@pytest.mark.parametrize("change", [rename, forget_mark])
def test_resuming_requires_every_tensor(run_folder, change):
    rewritten(run_folder / "model_0000003.pth", change)
    with pytest.raises(ValueError, match=r"model_0000003\.pth: The file lacks 1 tensors of the model: 0\.weight"):
        Checkpointer(make_model(), save_dir=str(run_folder)).load()


def test_testing_requires_every_tensor_of_our_files_and_fine_tuning_does_not(run_folder):
    path = run_folder / "model_0000003.pth"
    rewritten(path, lambda checkpoint: checkpoint["model"].pop("2.bias"))
    model = make_model()
    with pytest.raises(ValueError, match="the file is damaged: it has 8 of 9 tensors"):
        Checkpointer(model).load(path)
    optimizer = torch.optim.SGD(model.parameters(), lr=1)
    assert Checkpointer(model, optimizer).load(path, model_only=True) == {}
    Checkpointer(model).load(path, skip_mismatched_heads=True)
    wider = torch.nn.Sequential(*make_model(), torch.nn.Linear(1, 1))
    with pytest.raises(ValueError, match="The file lacks 2 tensors of the model: 3.weight"):
        Checkpointer(wider).load(run_folder / "model_0000002.pth")


def test_early_files_of_ours_are_recognised_by_their_entries(run_folder):
    path = run_folder / "model_0000003.pth"

    def early(checkpoint):
        rename(checkpoint)
        del checkpoint[MARK]
        checkpoint |= {"config": "MODEL: {}", "class_names": ["bee"]}

    rewritten(path, early)
    with pytest.raises(ValueError, match="lacks 1 tensors"):
        Checkpointer(make_model()).load(path)


def test_resuming_requires_every_written_entry(rng_seed, tmp_path):
    model = make_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=1)
    checkpointer = Checkpointer(model, optimizer, save_dir=str(tmp_path), save_to_disk=True)
    checkpointer.save("model_0000001", iteration=1)
    path = tmp_path / "model_0000001.pth"
    rewritten(path, lambda checkpoint: checkpoint.pop("optimizer"))
    with pytest.raises(ValueError, match="the entries optimizer are missing"):
        checkpointer.load()


def test_files_without_solver_states_are_complete_by_their_own_mark(run_folder):
    stripped = remove_solver_states(str(run_folder / "model_0000003.pth"))
    assert "iteration" not in read_checkpoint(stripped)[MARK]["entries"]
    assert Checkpointer(make_model()).load(stripped) == {}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("runs/model_final.pth", "a zip archive that contains runs/model_final.pth: unpack it"),
        ("a.safetensors", "a zip archive that contains a.safetensors"),
        ("readme.txt", "a zip archive without a checkpoint .it holds readme.txt"),
        ("x/constants.pkl", "a TorchScript program"),
    ],
)
def test_other_zip_files_are_described(run_folder, name, words):
    with zipfile.ZipFile(run_folder / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(run_folder / "model_0000001.pth", name)
    with pytest.raises(ValueError, match=rf"x\.zip is not a checkpoint but {words}"):
        Checkpointer(make_model()).load(run_folder / "x.zip")


def test_records_that_unpack_to_much_more_than_the_file_are_refused(tmp_path):
    path = tmp_path / "bomb.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x/data.pkl", b"\x80\x02N.")
        archive.writestr("x/data/0", bytes(100 << 20))
    with pytest.raises(ValueError, match=r"bomb\.pth is damaged.*would take 104,857"):
        check_sound(path)


def test_a_pipe_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe.pth")
    with pytest.raises(ValueError, match=r"pipe\.pth is not a regular file but a pipe"):
        Checkpointer(make_model()).load(tmp_path / "pipe.pth")


def safetensors(path, header, data=b""):
    path.write_bytes(struct.pack("<Q", len(header)) + header + data)
    return path


ENTRY = b'"%s":{"dtype":"U8","shape":[%s],"data_offsets":[%s]}'
HOSTILE_HEADERS = {
    "a list": b"{}" + b"[1]",
    "nested lists": b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "nested objects": b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
    "a million tensors": b"{" + b",".join(ENTRY % (b"%d" % i, b"0", b"0,0") for i in range(110_000)) + b"}",
    "many factors": b"{" + ENTRY % (b"a", b",".join([b"1"] * 200_000), b"0,4") + b"}",
    "large factors": b"{" + ENTRY % (b"a", b",".join([b"9" * 4000] * 200), b"0,4") + b"}",
    "a long number": b"{" + ENTRY % (b"a", b"9" * 1_000_000, b"0,4") + b"}",
    "text as shape": b'{"a":{"dtype":"U8","shape":"4","data_offsets":[0,4]}}',
    "a dict as shape": b'{"a":{"dtype":"U8","shape":{"4":4},"data_offsets":[0,4]}}',
    "floats": b'{"a":{"dtype":"U8","shape":[4.0],"data_offsets":[0,4]}}',
    "NaN": b'{"a":{"dtype":"U8","shape":[4],"data_offsets":[NaN,Infinity]}}',
    "bools": b'{"a":{"dtype":"U8","shape":[true],"data_offsets":[false,true]}}',
    "null": b'{"a":null}',
    "a list as dtype": b'{"a":{"dtype":["U8"],"shape":[4],"data_offsets":[0,4]}}',
    "three offsets": b'{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4,4]}}',
    "overlap": b"{" + ENTRY % (b"a", b"4", b"0,4") + b"," + ENTRY % (b"b", b"3", b"1,4") + b"}",
    "the same bytes": b"{" + ENTRY % (b"a", b"4", b"0,4") + b"," + ENTRY % (b"b", b"4", b"0,4") + b"}",
    "a gap": b"{" + ENTRY % (b"a", b"2", b"2,4") + b"}",
    "bytes left over": b"{" + ENTRY % (b"a", b"2", b"0,2") + b"}",
    "a name twice": b"{" + ENTRY % (b"a", b"4", b"0,4") + b"," + ENTRY % (b"a", b"4", b"0,4") + b"}",
    "a key twice": b'{"a":{"dtype":"U8","dtype":"U8","shape":[4],"data_offsets":[0,4]}}',
    "a long name": b"{" + ENTRY % (b"x" * 1_000_000, b"5", b"0,4") + b"}",
    "bytes that are no text": b'{"\xff":1}',
    "half a surrogate": b'{"\\ud800":1}',
}


@pytest.mark.parametrize("name", HOSTILE_HEADERS)
def test_hostile_safetensors_give_short_errors(tmp_path, name):
    path = safetensors(tmp_path / "x.safetensors", HOSTILE_HEADERS[name], b"1234")
    with pytest.raises(ValueError, match=r"x\.safetensors") as refused:
        read_checkpoint(path)
    assert len(str(refused.value)) < 2000


def test_safetensors_of_others_are_read_with_a_note(tmp_path, caplog):
    caplog.set_level("INFO")
    path = safetensors(tmp_path / "x.safetensors", b"{" + ENTRY % (b"a", b"4", b"0,4") + b"}", b"1234")
    assert read_safetensors(path)["a"].tolist() == list(b"1234")
    assert "has no checksums" in caplog.text
