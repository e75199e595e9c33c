import numpy as np
import pytest
import torch
from helpers import distributed_cases, processes
from torch.nn import functional as F

from maskrcnn_benchmark.modeling.semantic import segmentation_losses
from maskrcnn_benchmark.modeling.semantic.segmentation_losses import cross_entropy, dice, hard_examples
from maskrcnn_benchmark.structures.semantic_map import IGNORE_LABEL

ALL = ("cross_entropy", "dice", "cross_entropy_dice", "hard_examples")


@pytest.fixture
def batch(rng_seed):
    """Make logits (2, 4, 6, 8) and labels, a third of them ignored."""
    labels = torch.randint(0, 4, (2, 6, 8))
    labels[torch.rand(2, 6, 8) < 0.3] = IGNORE_LABEL
    return torch.randn(2, 4, 6, 8, dtype=torch.float64), labels


def probabilities(logits, labels):
    """Return the probabilities (M, K) of the labelled pixels, and their labels, in numpy."""
    rows = logits.permute(0, 2, 3, 1)[labels != IGNORE_LABEL].numpy()
    rows = np.exp(rows - rows.max(1, keepdims=True))
    return rows / rows.sum(1, keepdims=True), labels[labels != IGNORE_LABEL].numpy()


def test_cross_entropy_is_the_mean_over_labelled_pixels(batch):
    p, truth = probabilities(*batch)
    expected = -np.log(p[np.arange(len(p)), truth]).mean()
    assert cross_entropy(*batch).item() == pytest.approx(expected)


def test_class_weights_are_weights_of_pixels(batch):
    weights = (0.1, 0.2, 0.0625, 0.4)  # small, so that their sum can be less than one
    expected = F.cross_entropy(*batch, torch.tensor(weights, dtype=torch.float64), ignore_index=IGNORE_LABEL)
    assert cross_entropy(*batch, weights).item() == pytest.approx(expected.item())
    few = torch.full_like(batch[1], IGNORE_LABEL)
    few[0, 0, 0] = 2
    expected = F.cross_entropy(batch[0], few, ignore_index=IGNORE_LABEL)
    assert cross_entropy(batch[0], few, weights).item() == pytest.approx(expected.item())


def test_dice_by_its_formula(batch):
    p, truth = probabilities(*batch)
    g = np.eye(4)[truth]
    expected = 1 - ((2 * (p * g).sum(0) + 1) / (p.sum(0) + g.sum(0) + 1)).mean()
    assert dice(*batch).item() == pytest.approx(expected)


def test_dice_of_a_perfect_prediction_is_zero(rng_seed):
    labels = torch.randint(0, 3, (1, 9, 9))
    logits = 100 * F.one_hot(labels, 3).permute(0, 3, 1, 2).float()
    assert dice(logits, labels).item() == pytest.approx(0, abs=1e-6)


def test_hard_examples_are_below_the_probability(batch):
    p, truth = probabilities(*batch)
    own = p[np.arange(len(p)), truth]
    assert (own >= 0.3).any()
    expected = -np.log(own[own < 0.3]).mean()
    assert hard_examples(*batch, probability=0.3, fraction=0.0).item() == pytest.approx(expected)


def test_the_hardest_fraction_is_always_used(batch):
    p, truth = probabilities(*batch)
    own = np.sort(p[np.arange(len(p)), truth])
    expected = -np.log(own[: int(0.25 * len(own))]).mean()
    assert hard_examples(*batch, probability=1e-9, fraction=0.25).item() == pytest.approx(expected)


@pytest.mark.parametrize("name", ALL)
def test_loss_without_labels_is_zero_and_keeps_the_graph(name, rng_seed):
    logits = torch.randn(2, 4, 6, 8, requires_grad=True)
    loss = getattr(segmentation_losses, name)(logits, torch.full((2, 6, 8), IGNORE_LABEL))
    loss.backward()
    assert loss.item() == 0 and (logits.grad == 0).all()


@pytest.mark.parametrize("name", ALL)
def test_gradients(name, batch):
    logits, labels = batch
    loss = getattr(segmentation_losses, name)
    small, few = logits[:, :, :2, :3].clone().requires_grad_(), labels[:, :2, :3]
    assert torch.autograd.gradcheck(lambda x: loss(x, few), small)


def test_two_processes_compute_the_loss_of_the_whole_batch():
    """Compare the mean over processes with different numbers of labels; DistributedDataParallel averages so."""
    alone = distributed_cases.segmentation_losses([0, 1, 2])
    first, second = processes.run(2, distributed_cases.segmentation_losses_by_rank)
    for name, (value, grad) in alone.items():
        torch.testing.assert_close((first[name][0] + second[name][0]) / 2, value)
        torch.testing.assert_close(torch.cat((first[name][1], second[name][1])) / 2, grad)
