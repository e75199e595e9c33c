"""Encode boxes as offsets from other boxes (R-CNN, appendix C; Faster R-CNN, equation 2).

Shapes: R boxes, K codes for each.
"""

from __future__ import annotations

import math

import torch

from maskrcnn_benchmark.config.convention import get_convention


class BoxCoder:
    """Encode boxes as (dx, dy, dw, dh) relative to other boxes, and decode them.

    dx and dy are the distance between the centers in widths and heights of the other box. dw and dh are the logarithms
    of the ratios of the sides.

    Args:
        weights: factors of dx, dy, dw, dh in the code.
        bbox_xform_clip: upper bound of dw and dh in decoding, so that no box overflows float32.
        box_offset: see Convention.
        bounded_below: also apply -bbox_xform_clip as a lower bound.
    """

    def __init__(
        self,
        weights,
        bbox_xform_clip: float = math.log(1000.0 / 16),
        box_offset: float = 1.0,
        bounded_below: bool = False,
    ):
        self.weights = tuple(weights)
        self.bbox_xform_clip = bbox_xform_clip
        self.box_offset = box_offset
        self.least = -bbox_xform_clip if bounded_below else -math.inf

    def encode(self, reference_boxes: torch.Tensor, proposals: torch.Tensor) -> torch.Tensor:
        """Return the codes (R, 4) that turn proposals (R, 4) into reference_boxes (R, 4); all xyxy in pixels."""
        x, y, w, h = self._centers_and_sides(proposals)
        gx, gy, gw, gh = self._centers_and_sides(reference_boxes)
        wx, wy, ww, wh = self.weights
        return torch.stack(
            (wx * (gx - x) / w, wy * (gy - y) / h, ww * torch.log(gw / w), wh * torch.log(gh / h)), dim=1
        )

    def decode(self, rel_codes: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
        """Apply the codes (R, 4 K) to boxes (R, 4) and return boxes (R, 4 K), not clipped to the image.

        The result has the dtype of rel_codes.
        """
        boxes = boxes.to(rel_codes.dtype)
        x, y, w, h = (side[:, None] for side in self._centers_and_sides(boxes))
        codes = rel_codes.reshape(rel_codes.shape[0], rel_codes.shape[1] // 4, 4)
        dx, dy, dw, dh = (code / weight for code, weight in zip(codes.unbind(dim=2), self.weights, strict=True))
        center_x, center_y = dx * w + x, dy * h + y
        half_w = 0.5 * (torch.exp(dw.clamp(self.least, self.bbox_xform_clip)) * w)
        half_h = 0.5 * (torch.exp(dh.clamp(self.least, self.bbox_xform_clip)) * h)
        corners = (
            center_x - half_w,
            center_y - half_h,
            center_x + half_w - self.box_offset,
            center_y + half_h - self.box_offset,
        )
        return torch.stack(corners, dim=2).reshape(rel_codes.shape)

    def _centers_and_sides(self, boxes):
        """Return center x, center y, width and height, each (R,)."""
        x1, y1, x2, y2 = boxes.unbind(dim=1)
        width, height = x2 - x1 + self.box_offset, y2 - y1 + self.box_offset
        return x1 + 0.5 * width, y1 + 0.5 * height, width, height


def make_box_coder(cfg, weights) -> BoxCoder:
    """Build a box coder that follows the config's convention."""
    convention = get_convention(cfg.MODEL.CONVENTION)
    return BoxCoder(weights, box_offset=convention.box_offset, bounded_below=convention.codes_bounded_below)
