"""Losses of semantic segmentation: cross entropy, Dice, hard examples.

Shapes: N images, K classes, H x W pixels of the padded images, M labelled pixels of all images of all processes.

Every loss takes logits (N, K, H, W) and labels (N, H, W) int64, 0..K-1 or IGNORE_LABEL. It returns a scalar, 0 if there
are no labelled pixels. All losses divide by counts of the whole batch, over all processes. Averaged over the processes,
as DistributedDataParallel does with gradients, losses and gradients equal those of one process on the whole batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from maskrcnn_benchmark.structures.semantic_map import IGNORE_LABEL
from maskrcnn_benchmark.utils.comm import all_reduce_sum, get_world_size

Loss = Callable[[Tensor, Tensor], Tensor]

# Keeps Dice defined for a class that is neither present nor predicted.
DICE_SMOOTHING = 1.0


def cross_entropy(logits: Tensor, labels: Tensor, class_weights: Sequence[float] = ()) -> Tensor:
    """Average -log p(label) over the labelled pixels: sum_i w_i * -log p_i / sum_i w_i, w_i the weight of i's class.

    Args:
        class_weights: K factors; () for 1 each.
    """
    weights = logits.new_tensor(class_weights) if len(class_weights) else None
    total = F.cross_entropy(logits, labels, weights, ignore_index=IGNORE_LABEL, reduction="sum")
    labelled = labels != IGNORE_LABEL
    count = labelled.sum() if weights is None else weights[labels[labelled]].sum()
    return total / _share_of_all(count)


def dice(logits: Tensor, labels: Tensor) -> Tensor:
    """Return 1 - mean over classes of (2 sum_i p_i g_i + s) / (sum_i p_i + sum_i g_i + s) over the labelled pixels i.

    p_i is the softmax of the logits, g_i is 1 if i has the class, and s is a smoothing constant (V-Net, Milletari et
    al., 3DV 2016). The sums in the denominator are not squared, as in Sudre et al., DLMIA 2017.
    """
    labelled = labels != IGNORE_LABEL
    probabilities = logits.movedim(1, -1)[labelled].softmax(dim=-1)  # (M of this process, K)
    truth = F.one_hot(labels[labelled], logits.shape[1]).to(probabilities.dtype)
    sums = torch.stack(((probabilities * truth).sum(0), probabilities.sum(0) + truth.sum(0)))  # (2, K)
    both, each = _sum_of_all(sums)
    value = 1 - ((2 * both + DICE_SMOOTHING) / (each + DICE_SMOOTHING)).mean()
    # Only this process's part has a gradient, and averaging over the processes divides it: scale it, not the value.
    world = get_world_size()
    return value * world - value.detach() * (world - 1)


def cross_entropy_dice(logits: Tensor, labels: Tensor, class_weights: Sequence[float] = ()) -> Tensor:
    """Return the sum of `cross_entropy` and `dice`."""
    return cross_entropy(logits, labels, class_weights) + dice(logits, labels)


def hard_examples(logits: Tensor, labels: Tensor, probability: float = 0.7, fraction: float = 1 / 16) -> Tensor:
    """Average -log p(label) over the hard pixels (online hard example mining, Shrivastava et al., CVPR 2016).

    Pixels are hard if their class has a probability below `probability` (Wu, Shen & van den Hengel, 2016). The
    `fraction` of this process's labelled pixels with the largest loss, at least one pixel, is always hard.
    """
    losses = F.cross_entropy(logits, labels, ignore_index=IGNORE_LABEL, reduction="none")[labels != IGNORE_LABEL]
    if losses.numel():
        least = max(int(fraction * losses.numel()), 1)
        kth = losses.detach().kthvalue(losses.numel() - least + 1).values
        threshold = torch.minimum(kth, -torch.as_tensor(probability, device=kth.device).log())
        losses = losses[losses.detach() >= threshold]
    count = torch.tensor(losses.numel(), device=logits.device)
    return (losses.sum() + logits.sum() * 0) / _share_of_all(count)


def _sum_of_all(local: Tensor) -> Tensor:
    """Return the sum over all processes, with the gradient of this process's part."""
    return local + (all_reduce_sum(local.detach()) - local.detach())


def _share_of_all(count: Tensor) -> Tensor:
    """Return the mean count per process, the divisor of this process's sum; never 0, so that zero pixels give 0."""
    total = all_reduce_sum(count.to(torch.float32))
    return total.clamp(min=torch.finfo(torch.float32).tiny) / get_world_size()


def build_segmentation_loss(cfg) -> Loss:
    """Build the loss of MODEL.SEM_SEG_HEAD.LOSS.

    Raises:
        ValueError: the loss is unknown, or CLASS_WEIGHTS does not have one positive number per class.
    """
    node = cfg.MODEL.SEM_SEG_HEAD
    weights = tuple(node.CLASS_WEIGHTS)
    if weights and (len(weights) != node.NUM_CLASSES or not all(weight > 0 for weight in weights)):
        raise ValueError(
            f"MODEL.SEM_SEG_HEAD.CLASS_WEIGHTS is {weights}; expected {node.NUM_CLASSES} positive numbers, one for "
            "each of MODEL.SEM_SEG_HEAD.NUM_CLASSES, or () for none"
        )
    losses = {
        "cross_entropy": partial(cross_entropy, class_weights=weights),
        "dice": dice,
        "cross_entropy_dice": partial(cross_entropy_dice, class_weights=weights),
        "hard_examples": partial(hard_examples, probability=node.HARD_PROBABILITY, fraction=node.HARD_FRACTION),
    }
    if node.LOSS not in losses:
        raise ValueError(f"MODEL.SEM_SEG_HEAD.LOSS is {node.LOSS!r}; expected one of {', '.join(losses)}")
    if weights and not node.LOSS.startswith("cross_entropy"):
        raise ValueError(f"MODEL.SEM_SEG_HEAD.CLASS_WEIGHTS does not apply to LOSS {node.LOSS!r}; set it to ()")
    return losses[node.LOSS]
