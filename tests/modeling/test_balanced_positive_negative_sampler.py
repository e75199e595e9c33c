"""Test sizes, masks and fairness of the sampler."""

import pytest
import torch

from maskrcnn_benchmark.modeling.balanced_positive_negative_sampler import BalancedPositiveNegativeSampler


def labels(positives, negatives, ignored):
    values = torch.tensor([3] * positives + [0] * negatives + [-1] * ignored)
    return values[torch.randperm(len(values))]


@pytest.mark.parametrize(
    "counts, expected",
    [
        ((300, 300, 50), (64, 192)),
        ((10, 300, 50), (10, 246)),
        ((300, 20, 50), (64, 20)),
        ((5, 7, 50), (5, 7)),
        ((0, 500, 0), (0, 256)),
        ((0, 0, 9), (0, 0)),
        ((0, 0, 0), (0, 0)),
    ],
)
def test_sample_sizes(counts, expected, rng_seed):
    image = labels(*counts)
    (positive,), (negative,) = BalancedPositiveNegativeSampler(256, 0.25)([image])
    assert positive.dtype == negative.dtype == torch.bool and positive.shape == negative.shape == image.shape
    assert (int(positive.sum()), int(negative.sum())) == expected
    assert (image[positive] > 0).all() and (image[negative] == 0).all()


def test_images_are_sampled_independently(rng_seed):
    images = [labels(3, 100, 5), labels(0, 4, 0), labels(40, 40, 40)]
    positive, negative = BalancedPositiveNegativeSampler(10, 0.5)(images)
    assert [int(p.sum()) for p in positive] == [3, 0, 5]
    assert [int(n.sum()) for n in negative] == [7, 4, 5]


def test_everything_is_drawn_from_small_images(rng_seed):
    image = labels(30, 50, 20)
    (positive,), (negative,) = BalancedPositiveNegativeSampler(1_000_000, 0.5)([image])
    assert torch.equal(positive, image > 0) and torch.equal(negative, image == 0)


def test_every_example_is_drawn_about_equally_often(rng_seed):
    image, rounds = labels(20, 40, 0), 1500
    sampler = BalancedPositiveNegativeSampler(20, 0.5)
    drawn = torch.zeros(len(image))
    for _ in range(rounds):
        (positive,), (negative,) = sampler([image])
        drawn += positive.float() + negative.float()
    share = drawn / rounds
    # 10 of 20 and 10 of 40: 0.5 and 0.25; six standard deviations of a share are below 0.08
    assert (share[image > 0] - 0.5).abs().max() < 0.08 and (share[image == 0] - 0.25).abs().max() < 0.08


def test_the_same_seed_draws_the_same():
    image = labels(100, 200, 0)
    draws = []
    for _ in range(2):
        torch.manual_seed(3)
        draws.append(BalancedPositiveNegativeSampler(50, 0.5)([image]))
    assert torch.equal(draws[0][0][0], draws[1][0][0]) and torch.equal(draws[0][1][0], draws[1][1][0])
