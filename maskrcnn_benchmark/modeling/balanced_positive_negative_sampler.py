"""The random part of a batch that a loss looks at.

Shapes: N anchors or proposals of an image.
"""

from __future__ import annotations

import torch


class BalancedPositiveNegativeSampler:
    """Draws a fixed number of examples per image, with at most a given part of positives.

    Args:
        batch_size_per_image: examples drawn per image, or all there are.
        positive_fraction: at most int(batch_size_per_image * positive_fraction) of them are positive; negatives fill
            up what is left.
    """

    def __init__(self, batch_size_per_image: int, positive_fraction: float):
        self.batch_size_per_image = batch_size_per_image
        self.positive_fraction = positive_fraction

    def __call__(self, matched_idxs: list[torch.Tensor]) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Positive masks and negative masks, each (N,) bool per image.

        matched_idxs: per image labels (N,): at least 1 is positive, 0 negative, below 0 never drawn. The draw comes
        from the global generator of their device.
        """
        pairs = [self._sample(labels) for labels in matched_idxs]
        return [positive for positive, _ in pairs], [negative for _, negative in pairs]

    def _sample(self, labels):
        most_positive = int(self.batch_size_per_image * self.positive_fraction)
        positive = _draw(labels >= 1, most_positive, most_positive)
        room = self.batch_size_per_image - positive.sum()
        return positive, _draw(labels == 0, room, self.batch_size_per_image)


def _draw(mask: torch.Tensor, count: torch.Tensor | int, most: int) -> torch.Tensor:
    """A mask (N,) of `count` random entries of mask, or all if it has fewer; most is an upper bound of count.

    A random number for everybody and the largest ones win: unlike a permutation of the chosen ones, this does not make
    the GPU wait for how many there are.
    """
    keys = torch.where(mask, torch.rand(mask.shape, device=mask.device), -1.0)
    values, winners = keys.topk(min(most, len(keys)))
    ranks = torch.arange(len(winners), device=mask.device)
    return torch.zeros_like(mask).index_put((winners,), (values >= 0) & (ranks < count))
