"""Sample the anchors or proposals that contribute to a loss.

Shapes: N anchors or proposals of an image.
"""

from __future__ import annotations

import torch


class BalancedPositiveNegativeSampler:
    """Draw a fixed number of examples per image, with a limited fraction of positives.

    Args:
        batch_size_per_image: examples drawn per image; all of them if there are fewer.
        positive_fraction: at most int(batch_size_per_image * positive_fraction) examples are positive. Negatives fill
            the rest.
    """

    def __init__(self, batch_size_per_image: int, positive_fraction: float):
        self.batch_size_per_image = batch_size_per_image
        self.positive_fraction = positive_fraction

    def __call__(self, matched_idxs: list[torch.Tensor]) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Return the masks of drawn positives and of drawn negatives, each a list of (N,) bool per image.

        The draw uses the global generator of the labels' device.

        Args:
            matched_idxs: labels (N,) per image: at least 1 is positive, 0 is negative, below 0 is never drawn.
        """
        pairs = [self._sample(labels) for labels in matched_idxs]
        return [positive for positive, _ in pairs], [negative for _, negative in pairs]

    def _sample(self, labels):
        most_positive = int(self.batch_size_per_image * self.positive_fraction)
        positive = _draw(labels >= 1, most_positive, most_positive)
        room = self.batch_size_per_image - positive.sum()
        return positive, _draw(labels == 0, room, self.batch_size_per_image)


def _draw(mask: torch.Tensor, count: torch.Tensor | int, most: int) -> torch.Tensor:
    """Draw `count` random entries of a mask (N,), or all if it has fewer; return them as a mask (N,).

    Every entry gets a random number, and the largest ones are drawn. Unlike a permutation of the candidates, this does
    not make the host wait for their number.

    Args:
        most: an upper bound of count.
    """
    keys = torch.where(mask, torch.rand(mask.shape, device=mask.device), -1.0)
    values, winners = keys.topk(min(most, len(keys)))
    ranks = torch.arange(len(winners), device=mask.device)
    return torch.zeros_like(mask).index_put((winners,), (values >= 0) & (ranks < count))
