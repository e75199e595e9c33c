import pytest
import torch
from torch import nn

from maskrcnn_benchmark.layers.norm import FrozenBatchNorm2d, GroupNorm, get_norm, group_norm


def random_frozen(channels, eps=0.0):
    norm = FrozenBatchNorm2d(channels, eps)
    norm.weight.uniform_(0.5, 1.5)
    norm.bias.normal_()
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 1.5)
    return norm


def test_frozen_norm_equals_the_forks(units):
    case = units["frozen_bn"]
    norm = FrozenBatchNorm2d(2)
    norm.load_state_dict(
        {
            "weight": torch.tensor(case["weight"]),
            "bias": torch.tensor(case["bias"]),
            "running_mean": torch.tensor(case["mean"]),
            "running_var": torch.tensor(case["var"]),
        }
    )
    x = torch.tensor(case["x"])[:, :, None, None]
    torch.testing.assert_close(norm(x)[:, :, 0, 0], torch.tensor(case["y"]), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("eps", [0.0, 1e-5])
def test_frozen_norm_equals_batch_norm_in_evaluation(rng_seed, eps):
    norm = random_frozen(5, eps)
    x = torch.randn(2, 5, 7, 9)
    statistics = (norm.weight, norm.bias, norm.running_mean, norm.running_var)
    expected = torch.batch_norm(x, *statistics, False, 0.0, eps, False)  # torch 2.11's nn.functional refuses eps 0
    torch.testing.assert_close(norm(x), expected, rtol=1e-5, atol=1e-5)


def test_frozen_norm_has_four_buffers_and_no_parameters():
    norm = FrozenBatchNorm2d(3)
    assert list(norm.state_dict()) == ["weight", "bias", "running_mean", "running_var"]
    assert not list(norm.parameters())


def test_frozen_norm_loads_the_state_of_a_batch_norm():
    trained = nn.BatchNorm2d(3)
    trained.running_mean.fill_(2.0)
    norm = FrozenBatchNorm2d(3)
    norm.load_state_dict(trained.state_dict(), strict=True)
    assert norm.running_mean.tolist() == [2.0] * 3


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_frozen_norm_keeps_the_dtypes_of_input_and_buffers(dtype):
    norm = FrozenBatchNorm2d(3)
    # 1/sqrt of this variance is 4e4 in float32; a float16 variance would be 0.
    norm.running_var.fill_(6.25e-10)
    norm.weight.fill_(1e-4)
    y = norm(torch.ones(1, 3, 2, 2, dtype=dtype))
    assert y.dtype == dtype
    torch.testing.assert_close(y.float(), torch.full((1, 3, 2, 2), 4.0), rtol=1e-2, atol=0.0)
    assert norm.weight.dtype == norm.running_var.dtype == torch.float32


def test_frozen_norm_keeps_channels_last_and_supports_empty_batches(rng_seed):
    norm = random_frozen(4)
    x = torch.randn(2, 4, 5, 6).to(memory_format=torch.channels_last)
    assert norm(x).is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(norm(x), norm(x.contiguous()))
    assert norm(torch.empty(0, 4, 5, 6)).shape == (0, 4, 5, 6)


def test_gradient_flows_through_the_frozen_norm(rng_seed):
    norm = random_frozen(3).double()
    torch.autograd.gradcheck(norm, torch.randn(2, 3, 2, 2, dtype=torch.float64, requires_grad=True))


@pytest.mark.parametrize(
    ("name", "kind"),
    [("FrozenBN", FrozenBatchNorm2d), ("BN", nn.BatchNorm2d), ("SyncBN", nn.BatchNorm2d), ("GN", GroupNorm)],
)
def test_get_norm_by_name(name, kind):
    norm = get_norm(name, 64)
    assert type(norm) is kind
    assert norm(torch.randn(2, 64, 3, 3)).shape == (2, 64, 3, 3)


def test_default_and_given_eps():
    assert get_norm("FrozenBN", 32).eps == 0.0
    assert get_norm("FrozenBN", 32, eps=1e-5).eps == 1e-5
    assert get_norm("BN", 32).eps == get_norm("GN", 32).eps == 1e-5


def test_unknown_norm_is_refused():
    with pytest.raises(ValueError, match="no norm 'bn'.*'FrozenBN'"):
        get_norm("bn", 8)


def test_groups_by_number_or_by_size():
    assert group_norm(64).num_groups == 32
    assert group_norm(64, num_groups=-1, dim_per_gp=16).num_groups == 4
    halved = group_norm(64, divisor=2)
    assert (halved.num_channels, halved.num_groups) == (32, 16)
    assert group_norm(64, affine=False).weight is None


def test_indivisible_groups_are_refused():
    with pytest.raises(ValueError, match="cannot divide 48 channels into 32 groups"):
        group_norm(48)
    with pytest.raises(ValueError, match="either num_groups or dim_per_gp"):
        group_norm(64, num_groups=32, dim_per_gp=2)


@pytest.mark.parametrize("offset", [0.0, 300.0])
def test_group_norm_does_not_depend_on_the_layout(offset, rng_seed):
    x = torch.randn(2, 64, 9, 11) + offset
    norm = group_norm(64)
    exact = torch.nn.GroupNorm(32, 64).double()(x.double()).float()
    in_channels_last = norm(x.contiguous(memory_format=torch.channels_last))
    assert in_channels_last.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(in_channels_last, norm(x), rtol=0, atol=0)
    # float32 resolves values near 300 to 3e-5
    torch.testing.assert_close(in_channels_last, exact, rtol=1e-4, atol=1e-4)
