"""Pictures with boxes, masks and segments drawn on them, side by side and in grids.

Pictures are (H, W, 3) uint8 RGB numpy arrays. Nothing given is changed.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from maskrcnn_benchmark.utils.atomic_write import atomic_write

# Multipliers of maskrcnn-benchmark's demo, for blue, green and red.
PALETTE = (2**25 - 1, 2**15 - 1, 2**21 - 1)
INK = (20, 20, 20)
PAPER = (255, 255, 255)

# How much of a mask's colour is mixed in: the picture under it stays recognisable.
MASK_OPACITY = 0.45
SEGMENT_OPACITY = 0.6


def label_colors(labels) -> np.ndarray:
    """Colours (N, 3) uint8 RGB of labels (N,), the ones of maskrcnn-benchmark's demo."""
    blue_green_red = np.asarray(labels, dtype=np.int64)[:, None] * np.array(PALETTE) % 255
    return blue_green_red[:, ::-1].astype(np.uint8)


def draw_boxes(
    image: np.ndarray,
    boxes,
    class_names: Sequence[str] | None = None,
    score_threshold: float = 0.0,
    font_size: int = 13,
) -> np.ndarray:
    """A copy of the picture with boxes and a tag on each: class name and score, as far as the boxes have them.

    Boxes are drawn by rising score, so that the surest are on top, with a rim in contrast that shows on any background.

    Args:
        image: (H, W, 3) uint8 RGB.
        boxes: BoxList; resized to the picture when its size is another.
        class_names: name of label k is class_names[k - 1]; without it tags show the label.
        score_threshold: boxes with a lower score are left out; boxes without scores are all drawn.
        font_size: height of the text in pixels.
    """
    height, width = image.shape[:2]
    boxes = boxes.copy_with_fields(("labels", "scores"), skip_missing=True).convert("xyxy").to("cpu")
    if tuple(boxes.size) != (width, height):
        boxes = boxes.resize((width, height))
    scores = boxes.get_field("scores").tolist() if boxes.has_field("scores") else [None] * len(boxes)
    labels = boxes.get_field("labels").tolist() if boxes.has_field("labels") else [0] * len(boxes)
    shown = [i for i in range(len(boxes)) if scores[i] is None or scores[i] >= score_threshold]
    shown.sort(key=lambda i: 0.0 if scores[i] is None else scores[i])
    colors = label_colors(labels).tolist()
    corners = boxes.bbox.tolist()

    canvas = Image.fromarray(image)
    draw = ImageDraw.Draw(canvas)
    for i in shown:
        x1, y1, x2, y2 = corners[i]
        draw.rectangle((x1 - 1, y1 - 1, x2 + 1, y2 + 1), outline=_contrast(colors[i]), width=4)
        draw.rectangle((x1, y1, x2, y2), outline=tuple(colors[i]), width=2)
    font = ImageFont.load_default(font_size)
    taken: list[tuple[float, float, float, float]] = []
    for i in reversed(shown):
        text = _tag_text(labels[i], scores[i], class_names)
        if text:
            taken.append(_draw_tag(draw, text, corners[i], tuple(colors[i]), font, (width, height), taken))
    return np.asarray(canvas).copy()


def draw_masks(image: np.ndarray, masks, labels) -> np.ndarray:
    """A copy of the picture in which masks are tinted in the colour of their label, with an outline in full colour.

    Args:
        image: (H, W, 3) uint8 RGB.
        masks: (N, H', W') tensor or array, non-zero inside; stretched to the picture when their size is another. Later
            ones are drawn over earlier ones.
        labels: (N,).
    """
    drawn = image.copy()
    for mask, color in zip(np.asarray(masks), label_colors(labels), strict=True):
        inside = _stretched((mask != 0).astype(np.uint8), image.shape[:2]) != 0
        tint = drawn[inside] * (1 - MASK_OPACITY) + color * MASK_OPACITY
        drawn[inside] = tint.astype(np.uint8)
        padded = np.pad(inside, 1)
        whole = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
        drawn[inside & ~whole] = color
    return drawn


def draw_segments(
    image: np.ndarray, numbers: np.ndarray, names: Sequence[str], labels: Sequence[int], font_size: int = 13
) -> np.ndarray:
    """A copy of the picture in which segments are tinted in the colour of their label, parted by lines, and named.

    Args:
        image: (H, W, 3) uint8 RGB.
        numbers: (H', W') uint8 or int32, k + 1 where segment k is and 0 where none is; stretched to the picture when
            its size is another.
        names: S texts; each stands where its segment is widest, if there is room for half of its height.
        labels: S numbers, which decide colours only.
        font_size: height of the text in pixels.
    """
    import cv2  # a second to import, and nothing else here needs it

    numbers = _stretched(np.asarray(numbers), image.shape[:2])
    tints = np.concatenate((np.zeros((1, 3)), label_colors(labels)))[numbers]
    tinted = numbers > 0
    drawn = image.copy()
    drawn[tinted] = (image * (1 - SEGMENT_OPACITY) + tints * SEGMENT_OPACITY)[tinted].astype(np.uint8)
    edge = np.zeros(numbers.shape, dtype=bool)
    edge[:, 1:] |= numbers[:, 1:] != numbers[:, :-1]
    edge[1:] |= numbers[1:] != numbers[:-1]
    drawn[edge] = PAPER

    canvas = Image.fromarray(drawn)
    draw = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(font_size)
    for number, name in enumerate(names, start=1):
        inside = np.pad(numbers == number, 1).astype(np.uint8)  # the picture's border is one of the segment, too
        depth = cv2.distanceTransform(inside, cv2.DIST_L2, 3)[1:-1, 1:-1]
        y, x = np.unravel_index(depth.argmax(), depth.shape)
        if depth[y, x] < font_size / 2:
            continue
        room = draw.textbbox((0, 0), name, font=font, anchor="mm", stroke_width=2)
        x = min(max(x, -room[0]), max(image.shape[1] - room[2], -room[0]))
        draw.text((x, y), name, fill=PAPER, font=font, anchor="mm", stroke_width=2, stroke_fill=INK)
    return np.asarray(canvas).copy()


def _stretched(numbers: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(H, W) numbers in (height, width), by the nearest pixel."""
    if numbers.shape == tuple(size):
        return numbers
    return np.asarray(Image.fromarray(numbers).resize(size[::-1], Image.Resampling.NEAREST))


def _tag_text(label: int, score: float | None, class_names: Sequence[str] | None) -> str:
    name = ""
    if label > 0:
        name = class_names[label - 1] if class_names is not None and label <= len(class_names) else str(label)
    return name if score is None else f"{name} {score:.2f}".strip()


def _draw_tag(draw, text, box, color, font, size, taken) -> tuple[float, float, float, float]:
    """Draws text on a filled tag where it covers the fewest other tags; returns the tag's rectangle."""
    x1, y1, x2, y2 = box
    left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
    tag_width, tag_height = right - left + 6, bottom - top + 5
    corners = [(x1, y1 - tag_height), (x1, y1), (x1, y2), (x2 - tag_width, y1), (x1, y2 - tag_height)]
    candidates = []
    for x, y in corners:
        x = min(max(x, 0), max(size[0] - tag_width, 0))
        y = min(max(y, 0), max(size[1] - tag_height, 0))
        candidates.append((x, y, x + tag_width, y + tag_height))
    tag = min(candidates, key=lambda place: sum(overlap(place, other) for other in taken))
    draw.rectangle(tag, fill=color, outline=INK)
    draw.text((tag[0] + 3 - left, tag[1] + 2 - top), text, fill=_contrast(color), font=font)
    return tag


def _contrast(color) -> tuple[int, int, int]:
    """Dark for light colours and light for dark ones, by ITU-R BT.601 luma."""
    luma = 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2]
    return INK if luma > 110 else PAPER


def overlap(a, b) -> float:
    """Common area of two rectangles (left, top, right, bottom)."""
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))


def fit_width(image: np.ndarray, min_width: int, max_width: int) -> np.ndarray:
    """The picture at a width that text on it can be read at.

    Narrower than min_width: enlarged by a whole number, so that pixels stay squares. Wider than max_width: reduced.
    """
    height, width = image.shape[:2]
    if width > max_width:
        reduced = Image.fromarray(image).resize((max_width, max(1, round(height * max_width / width))), Image.BILINEAR)
        return np.asarray(reduced).copy()
    factor = -(-min_width // width)
    return image if factor <= 1 else image.repeat(factor, axis=0).repeat(factor, axis=1)


def side_by_side(left: np.ndarray, right: np.ndarray, gap: int = 4) -> np.ndarray:
    """Two pictures in one, tops aligned, on white."""
    return grid([left, right], columns=2, gap=gap, border=0)


def grid(
    pictures: Sequence[np.ndarray],
    columns: int,
    captions: Sequence[str] | None = None,
    gap: int = 12,
    border: int | None = None,
    font_size: int = 15,
) -> np.ndarray:
    """Pictures row by row on white, each with its caption above it.

    Args:
        pictures: may differ in size; a row is as high as its highest picture, a column as wide as its widest.
        captions: one a picture; cut where wider than the picture's column.
        gap: pixels between pictures.
        border: pixels around them all; None is gap.

    Raises:
        ValueError: no pictures, or not one caption a picture.
    """
    if not pictures:
        raise ValueError("grid wants at least one picture")
    if captions is not None and len(captions) != len(pictures):
        raise ValueError(f"grid got {len(pictures)} pictures and {len(captions)} captions")
    border = gap if border is None else border
    columns = min(columns, len(pictures))
    caption_height = 0 if captions is None else font_size + 6
    rows = [range(start, min(start + columns, len(pictures))) for start in range(0, len(pictures), columns)]
    widths = [max(picture.shape[1] for picture in pictures[k::columns]) for k in range(columns)]
    heights = [max(pictures[i].shape[0] for i in row) + caption_height for row in rows]
    canvas = Image.new(
        "RGB",
        (2 * border + sum(widths) + gap * (columns - 1), 2 * border + sum(heights) + gap * (len(rows) - 1)),
        PAPER,
    )
    draw = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(font_size)
    y = border
    for row, height in zip(rows, heights, strict=True):
        x = border
        for column, i in enumerate(row):
            if captions is not None:
                draw.text((x, y), _cut(captions[i], widths[column], font), fill=INK, font=font)
            canvas.paste(Image.fromarray(pictures[i]), (x, y + caption_height))
            x += widths[column] + gap
        y += height + gap
    return np.asarray(canvas).copy()


def _cut(text: str, width: int, font) -> str:
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "...") > width:
        text = text[:-1]
    return text + "..."


def save_picture(image: np.ndarray, path: str | os.PathLike) -> None:
    """Writes the picture, complete or not at all, in the format of the file's extension (.png, .jpg, ...).

    Raises:
        ValueError: the extension is of no picture format that can be written.
    """
    extension = os.path.splitext(os.fspath(path))[1].lower()
    format_name = Image.registered_extensions().get(extension)
    if format_name not in Image.SAVE:
        raise ValueError(f"can't write a picture to {path}: extension {extension!r} is unknown; use .png or .jpg")
    with atomic_write(path) as file:
        Image.fromarray(image).save(file, format=format_name, quality=92)
