import collections
import enum
import io

import numpy as np
import pytest
import torch

from maskrcnn_benchmark.checkpoint.plain_types import to_plain


def saved_size(value):
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.tell()


def test_numpy_scalars_become_python_numbers():
    plain = to_plain({"f": np.float64(0.5), "i": np.int32(3), "b": np.bool_(True), np.int64(7): [np.str_("x")]})
    assert plain == {"f": 0.5, "i": 3, "b": True, 7: ["x"]}
    assert [type(value) for value in (plain["f"], plain["i"], plain["b"], plain[7][0])] == [float, int, bool, str]
    assert all(type(key) in (str, int) for key in plain)


def test_containers_become_plain_except_counters():
    value = {
        "ordered": collections.OrderedDict(a=(1, [None, b"x"])),
        "default": collections.defaultdict(list, k=[1]),
        "counter": collections.Counter([2, 2]),
        "size": torch.Size([1, 2]),
    }
    plain = to_plain(value)
    assert plain == {"ordered": {"a": (1, [None, b"x"])}, "default": {"k": [1]}, "counter": {2: 2}, "size": (1, 2)}
    assert [type(plain[name]) for name in value] == [dict, dict, collections.Counter, tuple]


class Colour(enum.IntEnum):
    RED = 1


class Special(torch.Tensor):
    pass


@pytest.mark.parametrize(
    "value, words",
    [
        (np.ones(3), "ndarray.*torch.from_numpy"),
        (Colour.RED, "Colour"),
        (object(), "object"),
        (torch.float32, "dtype"),
        (len, "builtin"),
        (torch.nn.Linear(1, 1), "Linear"),
        (torch.ones(2).as_subclass(Special), "Special"),
    ],
)
def test_other_types_are_refused_by_name(value, words):
    with pytest.raises(TypeError, match=rf"checkpoint\['optimizer'\]\['state'\]\[1\] is .*{words}"):
        to_plain({"optimizer": {"state": [0, value]}})


def test_shared_tensors_are_written_once_and_slices_without_their_storage():
    big = torch.rand(1000, 100)
    assert saved_size(to_plain([big, big])) < 1.2 * saved_size(big)
    assert saved_size(to_plain([big[0], big[5]])) < 10_000
    plain = to_plain([big, big[3]])
    assert torch.equal(plain[1], big[3]) and torch.equal(plain[0], big)


def test_tensors_are_detached_and_empty_ones_keep_their_shape():
    plain = to_plain({"w": torch.nn.Parameter(torch.ones(2)), "a": torch.zeros(0, 4), "b": torch.zeros(3, 0)})
    assert not plain["w"].requires_grad and type(plain["w"]) is torch.Tensor
    assert plain["a"].shape == (0, 4) and plain["b"].shape == (3, 0)
