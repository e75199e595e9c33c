"""Boxes of one image with fields for each of them (labels, scores, masks, ...).

Shapes: N boxes.
"""

from __future__ import annotations

from typing import Any

import torch

from maskrcnn_benchmark.structures.boxes import box_area, clip_boxes

FLIP_LEFT_RIGHT = 0
FLIP_TOP_BOTTOM = 1

# In inclusive pixel boxes a side is x2 - x1 + 1, as in maskrcnn-benchmark.
TO_REMOVE = 1


def check_flip(method: int, name: str) -> None:
    """Raise NotImplementedError if `method` is not a flip that the class `name` supports."""
    if method not in (FLIP_LEFT_RIGHT, FLIP_TOP_BOTTOM):
        raise NotImplementedError(
            f"{name}.transpose supports FLIP_LEFT_RIGHT (0) and FLIP_TOP_BOTTOM (1), got {method!r}"
        )


class BoxList:
    """N boxes in one image, and named fields with one entry per box.

    Args:
        bbox: (N, 4) tensor or nested list; stored as float32.
        image_size: (width, height) in pixels of the image that the coordinates refer to.
        mode: "xyxy" (corners) or "xywh" (corner, width, height).
        box_offset: added to a coordinate difference to get the side: 1 if both corners are pixels of the box, 0 if they
            are points (see Convention). Every list derived from this one has the same.

    A field is a tensor whose first dimension is N, or an object with its own `resize(size)`, `transpose(method)`,
    `crop(box)`, `to` and indexing (masks, keypoints), which is transformed with the boxes. If box_offset is not 1,
    `transpose` gets it as a second argument.

    Raises:
        ValueError: bbox is not (N, 4), or mode is unknown.
    """

    # also on the class, for pickled lists of codebases that only had inclusive boxes
    box_offset: float = TO_REMOVE

    def __init__(self, bbox, image_size: tuple[int, int], mode: str = "xyxy", box_offset: float = TO_REMOVE):
        device = bbox.device if isinstance(bbox, torch.Tensor) else torch.device("cpu")
        bbox = torch.as_tensor(bbox, dtype=torch.float32, device=device)
        if bbox.numel() == 0 and bbox.dim() == 1:
            bbox = bbox.reshape(0, 4)  # an empty list has no second dimension to check
        if bbox.dim() != 2 or bbox.shape[-1] != 4:
            raise ValueError(f"BoxList requires boxes of shape (N, 4), got {tuple(bbox.shape)}")
        if mode not in ("xyxy", "xywh"):
            raise ValueError(f"BoxList mode is {mode!r}; expected 'xyxy' or 'xywh'")
        self.bbox = bbox
        self.size = image_size
        self.mode = mode
        self.box_offset = box_offset
        self.extra_fields: dict[str, Any] = {}

    # ---- fields

    def add_field(self, field: str, field_data: Any) -> None:
        """Set a field, replacing one of the same name."""
        self.extra_fields[field] = field_data

    def get_field(self, field: str) -> Any:
        """Return the field of that name; raise KeyError if it is missing."""
        return self.extra_fields[field]

    def has_field(self, field: str) -> bool:
        return field in self.extra_fields

    def fields(self) -> list[str]:
        return list(self.extra_fields)

    def _copy_extra_fields(self, boxlist: BoxList) -> None:
        self.extra_fields.update(boxlist.extra_fields)

    def _with_boxes(self, bbox: torch.Tensor, size, field_call=None) -> BoxList:
        """Return a new BoxList of `bbox` in this list's mode, with `field_call` applied to its object fields."""
        new = BoxList(bbox, size, "xyxy", self.box_offset).convert(self.mode)
        for name, data in self.extra_fields.items():
            follows = field_call is not None and not isinstance(data, torch.Tensor)
            new.add_field(name, field_call(data) if follows else data)
        return new

    # ---- coordinates

    def convert(self, mode: str) -> BoxList:
        """Return the same boxes in another mode (self if it has that mode already); fields are shared."""
        if mode not in ("xyxy", "xywh"):
            raise ValueError(f"BoxList mode is {mode!r}; expected 'xyxy' or 'xywh'")
        if mode == self.mode:
            return self
        x1, y1, x2, y2 = self._corners()
        if mode == "xywh":
            x2, y2 = x2 - x1 + self.box_offset, y2 - y1 + self.box_offset
        new = BoxList(torch.stack((x1, y1, x2, y2), dim=1), self.size, mode, self.box_offset)
        new._copy_extra_fields(self)
        return new

    def _corners(self) -> tuple[torch.Tensor, ...]:
        """Return x1, y1, x2, y2, each (N,)."""
        a, b, c, d = self.bbox.unbind(dim=1)
        if self.mode == "xyxy":
            return a, b, c, d
        return a, b, a + (c - self.box_offset).clamp(min=0), b + (d - self.box_offset).clamp(min=0)

    def with_offset(self, box_offset: float) -> BoxList:
        """Return the boxes with another box_offset (self if it is the same): xyxy corners change, sides do not."""
        if box_offset == self.box_offset:
            return self
        x1, y1, x2, y2 = self._corners()
        change = self.box_offset - box_offset
        moved = torch.stack((x1, y1, x2 + change, y2 + change), dim=1)
        new = BoxList(moved, self.size, "xyxy", box_offset).convert(self.mode)
        new._copy_extra_fields(self)
        return new

    def resize(self, size: tuple[int, int], *args, **kwargs) -> BoxList:
        """Scale the boxes to an image of size (width, height); coordinates are multiplied, not rounded."""
        ratio_x, ratio_y = (float(new) / float(old) for new, old in zip(size, self.size, strict=True))
        x1, y1, x2, y2 = self._corners()
        scaled = torch.stack((x1 * ratio_x, y1 * ratio_y, x2 * ratio_x, y2 * ratio_y), dim=1)
        if self.mode == "xywh":
            # Widths scale like coordinates. Converting to inclusive corners would not give w * ratio.
            scale = scaled.new_tensor([ratio_x, ratio_y, ratio_x, ratio_y])
            new = BoxList(self.bbox * scale, size, "xywh", self.box_offset)
            for name, data in self.extra_fields.items():
                follows = not isinstance(data, torch.Tensor)
                new.add_field(name, data.resize(size, *args, **kwargs) if follows else data)
            return new
        return self._with_boxes(scaled, size, lambda data: data.resize(size, *args, **kwargs))

    def transpose(self, method: int) -> BoxList:
        """Flip the boxes; method is FLIP_LEFT_RIGHT (x -> W - x - box_offset) or FLIP_TOP_BOTTOM (y -> H - y).

        The vertical flip lacks the - 1 of inclusive boxes, as in the original.
        """
        check_flip(method, "BoxList")
        width, height = self.size
        x1, y1, x2, y2 = self._corners()
        if method == FLIP_LEFT_RIGHT:
            x1, x2 = width - x2 - self.box_offset, width - x1 - self.box_offset
        else:
            y1, y2 = height - y2, height - y1
        mirrored = torch.stack((x1, y1, x2, y2), dim=1)
        return self._with_boxes(mirrored, self.size, lambda data: self._mirror(data, method))

    def _mirror(self, data, method):
        inclusive = self.box_offset == TO_REMOVE
        return data.transpose(method) if inclusive else data.transpose(method, self.box_offset)

    def crop(self, box) -> BoxList:
        """Return the boxes relative to the window box = (x1, y1, x2, y2), clipped; boxes outside stay as empty ones."""
        left, top, right, bottom = box
        width, height = right - left, bottom - top
        x1, y1, x2, y2 = self._corners()
        cropped = torch.stack(
            (
                (x1 - left).clamp(min=0, max=width),
                (y1 - top).clamp(min=0, max=height),
                (x2 - left).clamp(min=0, max=width),
                (y2 - top).clamp(min=0, max=height),
            ),
            dim=1,
        )
        return self._with_boxes(cropped, (width, height), lambda data: data.crop(box))

    def clip_to_image(self, remove_empty: bool = True) -> BoxList:
        """Clip the boxes to the image: coordinates within [0, side - box_offset].

        Modifies this BoxList (its tensor is replaced, not written in place). With remove_empty, returns a copy without
        the boxes that have x2 <= x1 or y2 <= y1; otherwise returns self.
        """
        clipped = clip_boxes(torch.stack(self._corners(), dim=1), self.size, self.box_offset)
        self.bbox = BoxList(clipped, self.size, "xyxy", self.box_offset).convert(self.mode).bbox
        if not remove_empty:
            return self
        return self[(clipped[:, 3] > clipped[:, 1]) & (clipped[:, 2] > clipped[:, 0])]

    def area(self) -> torch.Tensor:
        """Return the areas (N,) in square pixels."""
        if self.mode == "xywh":
            return self.bbox[:, 2] * self.bbox[:, 3]
        return box_area(self.bbox, self.box_offset)

    # ---- the list

    def to(self, device, non_blocking: bool = False) -> BoxList:
        """Return a copy on another device; fields without a `to` are shared. non_blocking: see torch.Tensor.to."""
        options = {"non_blocking": True} if non_blocking else {}
        new = BoxList(self.bbox.to(device, **options), self.size, self.mode, self.box_offset)
        for name, data in self.extra_fields.items():
            new.add_field(name, data.to(device, **options) if hasattr(data, "to") else data)
        return new

    def pin_memory(self) -> BoxList:
        """Return a copy in page-locked memory, for copies to a GPU without waiting; DataLoader calls this.

        Fields without a `pin_memory` are shared.
        """
        new = BoxList(self.bbox.pin_memory(), self.size, self.mode, self.box_offset)
        for name, data in self.extra_fields.items():
            new.add_field(name, data.pin_memory() if hasattr(data, "pin_memory") else data)
        return new

    def __getitem__(self, item) -> BoxList:
        """Select boxes with their fields by a slice, index tensor or list, or bool mask."""
        new = BoxList(self.bbox[item], self.size, self.mode, self.box_offset)
        for name, data in self.extra_fields.items():
            new.add_field(name, data[item])
        return new

    def __len__(self) -> int:
        return self.bbox.shape[0]

    def copy_with_fields(self, fields, skip_missing: bool = False) -> BoxList:
        """Return a BoxList of the same boxes with only the named fields.

        Raises:
            KeyError: a field is missing and skip_missing is False.
        """
        new = BoxList(self.bbox, self.size, self.mode, self.box_offset)
        for name in [fields] if isinstance(fields, str) else fields:
            if self.has_field(name):
                new.add_field(name, self.get_field(name))
            elif not skip_missing:
                raise KeyError(f"field {name!r} is not in this BoxList; it has {self.fields()}")
        return new

    def __repr__(self) -> str:
        width, height = self.size
        return f"BoxList(num_boxes={len(self)}, image_width={width}, image_height={height}, mode={self.mode})"
