"""Run a semantic segmentor on whole images or sliding windows, at several scales, and mirrored.

Shapes: N images, K classes, H x W pixels of an image, h x w pixels of a window.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskrcnn_benchmark.structures.bounding_box import BoxList
from maskrcnn_benchmark.structures.image_list import ImageList, to_image_list
from maskrcnn_benchmark.structures.packed_map import PackedMap

MODES = ("auto", "whole", "slide")


class SegmentByViews(nn.Module):
    """Semantic segmentor with sliding windows and test-time augmentation.

    With windows or several views, probabilities are averaged with equal weights. With one view of a whole image, the
    class is the argmax of the logits. Sliding windows require memory for one row of windows, K x h x W probabilities,
    independent of the height of the image.

    Args:
        model: module with `logits(images)`, which returns (N, K, H, W) at the size of the padded images.
        mode: "whole" runs the model on whole images, "slide" on windows. "auto" uses windows for images with more than
            whole_max_pixels.
        whole_max_pixels: see mode.
        pad_to: whole images are padded at the right and bottom to at least (height, width) with 0, which is the mean;
            None does not pad.
        window: (h, w). Windows larger than the image are padded with 0.
        overlap: share of a window that overlaps with its neighbour. Probabilities are averaged there.
        scales: factors by which an image or window is resized before it enters the model.
        h_flip: run the mirrored image, too.

    Forward takes an ImageList and `output_sizes`, N pairs (width, height) that default to the sizes of the images. It
    returns N BoxLists without boxes. Their field "semantic" is a PackedMap of classes at the output size. If this
    differs from the size of the image, classes are resized with nearest-neighbour interpolation.

    Raises:
        ValueError: mode is unknown.
    """

    takes_output_sizes = True

    def __init__(
        self,
        model: nn.Module,
        mode: str = "auto",
        whole_max_pixels: int = 2_200_000,
        pad_to: tuple[int, int] | None = None,
        window: tuple[int, int] = (513, 513),
        overlap: float = 1 / 3,
        scales: Sequence[float] = (1.0,),
        h_flip: bool = False,
    ):
        super().__init__()
        if mode not in MODES:
            raise ValueError(f"mode must be one of {', '.join(map(repr, MODES))}, got {mode!r}")
        self.model = model
        self.mode, self.whole_max_pixels = mode, whole_max_pixels
        self.pad_to = tuple(pad_to) if pad_to else (1, 1)
        self.window, self.overlap = tuple(window), overlap
        sides = (False, True) if h_flip else (False,)
        self.views = [(float(scale), mirrored) for scale in scales for mirrored in sides]

    @torch.no_grad()
    def forward(self, images, targets=None, output_sizes=None) -> list[BoxList]:
        images = to_image_list(images)
        own = [images.tensors[i, :, :height, :width] for i, (height, width) in enumerate(images.image_sizes)]
        classes = self._whole_batch(own) or [self._classes(image) for image in own]
        sizes = output_sizes or [(width, height) for height, width in images.image_sizes]
        return [_as_result(found, size) for found, size in zip(classes, sizes, strict=True)]

    def _is_whole(self, image: Tensor) -> bool:
        pixels = image.shape[1] * image.shape[2]
        return self.mode == "whole" or self.mode == "auto" and pixels <= self.whole_max_pixels

    def _whole_batch(self, images: list[Tensor]) -> list[Tensor] | None:
        """Segment images of equal padded size as one batch; return None if the sizes differ."""
        if not all(self._is_whole(image) for image in images):
            return None
        padded = [_pad(image, self.pad_to) for image in images]
        if len({tuple(image.shape) for image in padded}) > 1:
            return None
        scores = self._scores(torch.stack(padded), probabilities=False)
        return [
            _likeliest(each[:, : image.shape[1], : image.shape[2]]) for each, image in zip(scores, images, strict=True)
        ]

    def _classes(self, image: Tensor) -> Tensor:
        """Segment one image (3, H, W); return (H, W) uint8 on the CPU."""
        if not self._is_whole(image):
            return self._slide(image)
        scores = self._scores(_pad(image, self.pad_to)[None], probabilities=False)[0]
        return _likeliest(scores[:, : image.shape[1], : image.shape[2]])

    def _slide(self, image: Tensor) -> Tensor:
        """Segment one image (3, H, W) by sliding windows; return (H, W) uint8 on the CPU."""
        _, height, width = image.shape
        window_height, window_width = self.window
        tops, lefts = self._starts(height, window_height), self._starts(width, window_width)
        classes = torch.empty((height, width), dtype=torch.uint8)
        rows = None  # (K, h, W): summed probabilities below the top of the window; argmax needs no division by counts
        for k, top in enumerate(tops):
            bottom = min(top + window_height, height)
            for left in lefts:
                right = min(left + window_width, width)
                cut = _pad(image[:, top:bottom, left:right], self.window)
                scores = self._scores(cut[None], probabilities=True)[0]
                if rows is None:
                    rows = scores.new_zeros((len(scores), min(window_height, height), width))
                rows[:, : bottom - top, left:right] += scores[:, : bottom - top, : right - left]
            done = (tops[k + 1] if k + 1 < len(tops) else height) - top
            classes[top : top + done] = _likeliest(rows[:, :done])
            kept = rows[:, done:].clone()
            rows.zero_()
            rows[:, : kept.shape[1]] = kept
        return classes

    def _starts(self, length: int, window: int) -> list[int]:
        """Return the first pixels of windows that cover a side; the last window ends at the border."""
        if length <= window:
            return [0]
        step = max(round(window * (1 - self.overlap)), 1)
        return [*range(0, length - window, step), length - window]

    def _scores(self, images: Tensor, probabilities: bool) -> Tensor:
        """Score a batch (N, 3, H, W).

        Returns:
            (N, K, H, W): the probabilities summed over all views. With a single view at scale 1 and `probabilities`
            False, the logits.
        """
        total = None
        size = images.shape[-2:]
        for scale, mirrored in self.views:
            seen = images.flip(3) if mirrored else images
            if scale != 1:
                scaled = [max(round(side * scale), 1) for side in size]
                seen = F.interpolate(seen, scaled, mode="bilinear", antialias=True)
            logits = self.model.logits(ImageList(seen, [seen.shape[-2:]] * len(seen)))
            if len(self.views) == 1 and scale == 1 and not probabilities:
                return logits
            if scale != 1:
                logits = F.interpolate(logits, size, mode="bilinear", align_corners=False)
            view = logits.softmax(dim=1)
            view = view.flip(3) if mirrored else view
            total = view if total is None else total.add_(view)
        return total


def _pad(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Pad an image (3, H, W) at the right and bottom with 0 to at least (height, width)."""
    more = max(size[0] - image.shape[1], 0), max(size[1] - image.shape[2], 0)
    return F.pad(image, (0, more[1], 0, more[0])) if any(more) else image


def _likeliest(scores: Tensor) -> Tensor:
    """Return the argmax over K of scores (K, H, W), as (H, W) uint8 on the CPU."""
    return scores.argmax(dim=0).to(torch.uint8).cpu()


def _as_result(classes: Tensor, size: tuple[int, int]) -> BoxList:
    height, width = classes.shape
    if (width, height) != tuple(size):
        classes = F.interpolate(classes[None, None].float(), size[::-1], mode="nearest-exact")[0, 0].to(torch.uint8)
    result = BoxList(torch.zeros((0, 4)), (width, height))
    result.add_field("semantic", PackedMap(classes))
    return result


def make_semantic_views(cfg, model: nn.Module) -> SegmentByViews:
    """Wrap the model in the views of TEST.SEMANTIC."""
    node = cfg.TEST.SEMANTIC
    return SegmentByViews(
        model,
        mode=node.MODE,
        whole_max_pixels=node.WHOLE_MAX_PIXELS,
        pad_to=node.PAD_TO,
        window=node.WINDOW,
        overlap=node.OVERLAP,
        scales=node.SCALES,
        h_flip=node.H_FLIP,
    )
