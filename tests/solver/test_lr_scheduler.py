import pytest
import torch

from maskrcnn_benchmark.solver import WarmupCosineLR, WarmupMultiStepLR, WarmupPolyLR


def optimizer(*rates):
    return torch.optim.SGD([{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": lr} for lr in rates], lr=0.1)


def rates(scheduler, iterations):
    """Return the learning rate of group 0 at every iteration from 0."""
    found = []
    for _ in range(iterations):
        found.append(scheduler.optimizer.param_groups[0]["lr"])
        scheduler.optimizer.step()
        scheduler.step()
    return found


@pytest.mark.parametrize(
    "case, factor, method",
    [("linear_1/3", 1 / 3, "linear"), ("constant_1/3", 1 / 3, "constant"), ("linear_0.001", 0.001, "linear")],
)
def test_multi_step_rates_equal_the_forks_exactly(units, case, factor, method):
    expected = units["lr_by_last_epoch"]
    scheduler = WarmupMultiStepLR(
        optimizer(expected["base_lr"]),
        expected["steps"],
        expected["gamma"],
        warmup_factor=factor,
        warmup_iters=expected["warmup_iters"],
        warmup_method=method,
    )
    found = rates(scheduler, 1501)
    assert {k: found[int(k)] for k in expected[case]} == expected[case]


def test_unsorted_milestones_are_refused():
    with pytest.raises(ValueError, match="increasing"):
        WarmupMultiStepLR(optimizer(0.1), [10, 5])


@pytest.mark.parametrize("kind", [WarmupMultiStepLR, WarmupCosineLR, WarmupPolyLR])
def test_unknown_warmup_is_refused(kind):
    with pytest.raises(ValueError, match="warmup_method"):
        kind(optimizer(0.1), [5] if kind is WarmupMultiStepLR else 10, warmup_method="exponential")


def test_cosine_falls_from_the_base_rate_to_zero():
    found = rates(WarmupCosineLR(optimizer(0.2), 100, warmup_iters=0), 102)
    assert found[0] == 0.2
    assert found[50] == pytest.approx(0.1)
    assert found[100] == found[101] == 0
    assert found == sorted(found, reverse=True)


def test_poly_follows_its_power_after_the_warmup():
    found = rates(WarmupPolyLR(optimizer(0.2), 100, power=2, warmup_factor=0.5, warmup_iters=10), 101)
    assert found[0] == 0.1
    assert found[10] == pytest.approx(0.2 * 0.9**2)
    assert found[100] == 0


@pytest.mark.parametrize("kind, argument", [(WarmupMultiStepLR, [8, 12]), (WarmupCosineLR, 20), (WarmupPolyLR, 20)])
def test_restored_schedule_continues(kind, argument):
    whole = rates(kind(optimizer(0.1, 0.2), argument, warmup_iters=5), 20)
    first = kind(optimizer(0.1, 0.2), argument, warmup_iters=5)
    rates(first, 7)
    second = kind(optimizer(0.1, 0.2), argument, warmup_iters=5)
    second.load_state_dict(first.state_dict())
    assert second.optimizer.param_groups[1]["lr"] == first.optimizer.param_groups[1]["lr"]
    assert rates(second, 13) == whole[7:]


def test_only_the_position_of_a_fork_state_is_used():
    scheduler = WarmupMultiStepLR(optimizer(0.1, 0.2), [8], warmup_iters=0)
    scheduler.load_state_dict(
        {
            "milestones": [3],
            "gamma": 0.5,
            "warmup_factor": 0.3,
            "warmup_iters": 500,
            "warmup_method": "linear",
            "base_lrs": [0.02, 0.04, 0.02],
            "last_epoch": 8,
            "_step_count": 9,
        }
    )
    assert [group["lr"] for group in scheduler.optimizer.param_groups] == pytest.approx([0.01, 0.02])
    assert scheduler.get_last_lr() == [group["lr"] for group in scheduler.optimizer.param_groups]


def test_state_without_a_position_is_refused():
    with pytest.raises(KeyError, match="last_epoch"):
        WarmupMultiStepLR(optimizer(0.1), [8]).load_state_dict({"milestones": [1]})
