"""Draw boxes, masks and segments on images, and arrange images side by side and in grids.

Images are (H, W, 3) uint8 RGB numpy arrays. Inputs are never modified.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from maskrcnn_benchmark.utils.atomic_write import atomic_write
from maskrcnn_benchmark.visual.fonts import Fonts, font_for
from maskrcnn_benchmark.visual.palette import contrast_ratio, label_colors

INK = (20, 20, 20)
PAPER = (255, 255, 255)

# Opacity of a mask's color: the image under it stays recognizable.
MASK_OPACITY = 0.45
SEGMENT_OPACITY = 0.6
# Fraction of the image that tags may cover before they are shortened.
CROWDED = 0.2


def draw_boxes(
    image: np.ndarray,
    boxes,
    class_names: Sequence[str] | None = None,
    score_threshold: float = 0.0,
    font_size: int = 13,
    font: str | os.PathLike | None = None,
) -> np.ndarray:
    """Draw boxes on a copy of the image, each with a tag of track, class name and score, if the boxes have them.

    In a crowded image each class is named once, at its box with the highest score; other tags have track and score.

    Boxes are drawn in ascending order of scores, so that the highest are on top. A contrasting rim shows on any
    background.

    Args:
        image: (H, W, 3) uint8 RGB.
        boxes: BoxList; resized to the image if its size differs. Fields "labels", "scores" and "track_ids" (0 is none)
            are drawn.
        class_names: name of label k is class_names[k - 1]; without it tags show the label.
        score_threshold: boxes with a lower score are left out; boxes without scores are all drawn.
        font_size: height of the text in pixels.
        font: font file; None uses one that has the letters of the class names.
    """
    height, width = image.shape[:2]
    boxes = boxes.copy_with_fields(("labels", "scores", "track_ids"), skip_missing=True).convert("xyxy").to("cpu")
    if tuple(boxes.size) != (width, height):
        boxes = boxes.resize((width, height))
    if boxes.has_field("scores"):
        boxes = boxes[boxes.get_field("scores") >= score_threshold]
        boxes = boxes[boxes.get_field("scores").argsort(descending=True, stable=True)]
    labels = boxes.get_field("labels").tolist() if boxes.has_field("labels") else [0] * len(boxes)
    colors, corners = label_colors(labels), boxes.bbox.tolist()
    drawn = draw_frames(image, corners, colors)
    texts, short_texts = tag_texts(boxes, class_names)
    return draw_tags(drawn, corners, texts, colors, short_texts, font_size, font, letters=class_names or ())


def draw_frames(image: np.ndarray, corners, colors) -> np.ndarray:
    """Draw rectangles on a copy of the image, the first on top, each with a contrasting rim.

    Args:
        image: (H, W, 3) uint8 RGB.
        corners: (N, 4) x1, y1, x2, y2 in pixels.
        colors: (N, 3) uint8 RGB.
    """
    canvas = Image.fromarray(image)
    draw = ImageDraw.Draw(canvas)
    for (x1, y1, x2, y2), color in reversed(list(zip(corners, _tuples(colors), strict=True))):
        x2, y2 = max(x1, x2), max(y1, y2)
        draw.rectangle((x1 - 1, y1 - 1, x2 + 1, y2 + 1), outline=_contrast(color), width=4)
        draw.rectangle((x1, y1, x2, y2), outline=color, width=2)
    return np.asarray(canvas).copy()


def draw_tags(
    image: np.ndarray,
    corners,
    texts: Sequence[str],
    colors,
    short_texts: Sequence[str] | None = None,
    font_size: int = 13,
    font: str | os.PathLike | None = None,
    letters: Sequence[str] = (),
) -> np.ndarray:
    """Draw a tag at each box on a copy of the image, where it covers the fewest other tags.

    Args:
        image: (H, W, 3) uint8 RGB.
        corners: (N, 4) x1, y1, x2, y2 in pixels, the most important box first; tags without room are left out.
        texts: N texts; "" draws no tag.
        colors: (N, 3) uint8 RGB, which fill the tags.
        short_texts: N texts, used if the tags would cover more than CROWDED of the image, except for the first box of
            each color; None always uses texts.
        font_size: height of the text in pixels.
        font: font file; None uses those that have the letters of `texts` and `letters`.
    """
    height, width = image.shape[:2]
    canvas = Image.fromarray(image)
    draw = ImageDraw.Draw(canvas)
    fonts = Fonts([*(letters or texts), "#0123456789.:"], font_size, font)
    colors, texts = _tuples(colors), list(texts)
    if short_texts is not None and _tags_area(draw, texts, fonts) > CROWDED * width * height:
        firsts = {color: i for i, color in reversed(list(enumerate(colors)))}
        texts = [text if firsts[colors[i]] == i else short_texts[i] for i, text in enumerate(texts)]
    taken: list[tuple[float, float, float, float]] = []
    for box, text, color in zip(corners, texts, colors, strict=True):
        tag = _draw_tag(draw, text, box, color, fonts.of(text), (width, height), taken) if text else None
        taken += [] if tag is None else [tag]
    return np.asarray(canvas).copy()


def tag_texts(boxes, class_names: Sequence[str] | None = None) -> tuple[list[str], list[str]]:
    """Return the tag texts of boxes (track, class and score, if the fields exist), and those without the class."""
    texts, short_texts = [], []
    fields = [
        boxes.get_field(name).tolist() if boxes.has_field(name) else [None] * len(boxes)
        for name in ("track_ids", "labels", "scores")
    ]
    for track, label, score in zip(*fields, strict=True):
        track, score = f"#{track}" if track else "", "" if score is None else f"{score:.2f}"
        name = ""
        if label:
            name = class_names[label - 1] if class_names is not None and label <= len(class_names) else str(label)
        texts.append(" ".join(part for part in (track, name, score) if part))
        short_texts.append(" ".join(part for part in (track, score) if part))
    return texts, short_texts


def _tuples(colors) -> list[tuple[int, ...]]:
    return [tuple(color) for color in np.asarray(colors).reshape(-1, 3).tolist()]


def draw_masks(image: np.ndarray, masks, labels, colors=None) -> np.ndarray:
    """Tint masks on a copy of the image in the color of their label, with an opaque outline.

    Args:
        image: (H, W, 3) uint8 RGB.
        masks: (N, H', W') tensor or array, nonzero inside; resized to the image if its size differs. Later ones are
            drawn over earlier ones.
        labels: (N,).
        colors: (N, 3) uint8 RGB; None takes those of the labels.
    """
    drawn = image.copy()
    for mask, color in zip(np.asarray(masks), label_colors(labels) if colors is None else colors, strict=True):
        inside = _stretched((mask != 0).astype(np.uint8), image.shape[:2]) != 0
        tint = drawn[inside] * (1 - MASK_OPACITY) + color * MASK_OPACITY
        drawn[inside] = tint.astype(np.uint8)
        padded = np.pad(inside, 1)
        whole = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
        drawn[inside & ~whole] = color
    return drawn


def draw_segments(
    image: np.ndarray,
    numbers: np.ndarray,
    names: Sequence[str],
    labels: Sequence[int],
    font_size: int = 13,
    font: str | os.PathLike | None = None,
) -> np.ndarray:
    """Tint segments on a copy of the image in the color of their label, separated by lines, and named.

    Args:
        image: (H, W, 3) uint8 RGB.
        numbers: (H', W') uint8 or int32, k + 1 for segment k and 0 for none; resized to the image if its size differs.
        names: S texts; each is drawn where its segment is widest, if there is room for half of its height.
        labels: S numbers, which only decide colors.
        font_size: height of the text in pixels.
        font: font file; None uses one that has the letters of the names.
    """
    import cv2  # the import takes a second, and nothing else here needs it

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
    fonts = Fonts(names, font_size, font)
    for number, name in enumerate(names, start=1):
        inside = np.pad(numbers == number, 1).astype(np.uint8)  # the image's border also limits the segment
        depth = cv2.distanceTransform(inside, cv2.DIST_L2, 3)[1:-1, 1:-1]
        y, x = np.unravel_index(depth.argmax(), depth.shape)
        if depth[y, x] < font_size / 2:
            continue
        type_face = fonts.of(name)
        room = draw.textbbox((0, 0), name, font=type_face, anchor="mm", stroke_width=2)
        x = min(max(x, -room[0]), max(image.shape[1] - room[2], -room[0]))
        draw.text((x, y), name, fill=PAPER, font=type_face, anchor="mm", stroke_width=2, stroke_fill=INK)
    return np.asarray(canvas).copy()


def draw_note(image: np.ndarray, text: str, font_size: int = 18, margin: int = 8) -> np.ndarray:
    """Write a text in the lower left corner of a copy of the image, readable on any background."""
    canvas = Image.fromarray(image)
    place = (margin, image.shape[0] - margin)
    face = font_for([text], font_size)
    ImageDraw.Draw(canvas).text(place, text, fill=PAPER, font=face, anchor="ls", stroke_width=2, stroke_fill=INK)
    return np.asarray(canvas).copy()


def _stretched(numbers: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize (H, W) numbers to (height, width), by the nearest pixel."""
    if numbers.shape == tuple(size):
        return numbers
    return np.asarray(Image.fromarray(numbers).resize(size[::-1], Image.Resampling.NEAREST))


def _tags_area(draw, texts, fonts: Fonts) -> float:
    """Return the area of all tags together, in square pixels."""
    rectangles = [draw.textbbox((0, 0), text, font=fonts.of(text)) for text in texts if text]
    return sum((right - left + 6) * (bottom - top + 5) for left, top, right, bottom in rectangles)


def _draw_tag(draw, text, box, color, font, size, taken) -> tuple[float, float, float, float] | None:
    """Draw text on a filled tag where it covers the fewest other tags.

    Returns:
        The tag's rectangle, or None: it would hide half of its own area of other tags, and is not drawn.
    """
    x1, y1, x2, y2 = box
    left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
    tag_width, tag_height = right - left + 6, bottom - top + 5
    corners = [(x1, y1 - tag_height), (x1, y1), (x1, y2), (x2 - tag_width, y1), (x1, y2 - tag_height)]
    candidates = []
    for x, y in corners:
        x = min(max(x, 0), max(size[0] - tag_width, 0))
        y = min(max(y, 0), max(size[1] - tag_height, 0))
        candidates.append((x, y, x + tag_width, y + tag_height))
    hidden, tag = min((sum(overlap(place, other) for other in taken), place) for place in candidates)
    if hidden > tag_width * tag_height / 2:
        return None
    draw.rectangle(tag, fill=color, outline=INK)
    draw.text((tag[0] + 3 - left, tag[1] + 2 - top), text, fill=_contrast(color), font=font)
    return tag


def _contrast(color) -> tuple[int, int, int]:
    """Return the ink that is easier to read on the color: dark or light."""
    return max((INK, PAPER), key=lambda ink: contrast_ratio(color, ink))


def overlap(a, b) -> float:
    """Return the common area of two rectangles (left, top, right, bottom)."""
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))


def fit_width(image: np.ndarray, min_width: int, max_width: int) -> np.ndarray:
    """Resize the image to a width at which text on it is readable.

    Below min_width it is enlarged by an integer, so that pixels stay squares. Above max_width it is reduced.
    """
    height, width = image.shape[:2]
    if width > max_width:
        reduced = Image.fromarray(image).resize((max_width, max(1, round(height * max_width / width))), Image.BILINEAR)
        return np.asarray(reduced).copy()
    factor = -(-min_width // width)
    return image if factor <= 1 else image.repeat(factor, axis=0).repeat(factor, axis=1)


def side_by_side(left: np.ndarray, right: np.ndarray, gap: int = 4) -> np.ndarray:
    """Join two images in one, tops aligned, on white."""
    return grid([left, right], columns=2, gap=gap, border=0)


def grid(
    images: Sequence[np.ndarray],
    columns: int,
    captions: Sequence[str] | None = None,
    gap: int = 12,
    border: int | None = None,
    font_size: int = 15,
    title: str | None = None,
    font: str | os.PathLike | None = None,
) -> np.ndarray:
    """Arrange images row by row on white, each with its caption above it.

    Args:
        images: may differ in size; a row is as high as its highest image, a column as wide as its widest.
        columns: images per row.
        captions: one per image; cut if wider than the image's column.
        gap: pixels between images.
        border: pixels around all images; None is gap.
        font_size: height of captions in pixels.
        title: text above all images, wrapped to the width of the sheet.
        font: font file; None uses one that has the letters of the captions.

    Raises:
        ValueError: there are no images, or not one caption per image.
    """
    if not images:
        raise ValueError("grid requires at least one image")
    if captions is not None and len(captions) != len(images):
        raise ValueError(f"grid got {len(images)} images and {len(captions)} captions")
    border = gap if border is None else border
    columns = min(columns, len(images))
    caption_height = 0 if captions is None else font_size + 6
    rows = [range(start, min(start + columns, len(images))) for start in range(0, len(images), columns)]
    widths = [max(image.shape[1] for image in images[k::columns]) for k in range(columns)]
    heights = [max(images[i].shape[0] for i in row) + caption_height for row in rows]
    fonts = Fonts(captions or (), font_size, font)
    title_face = font_for([title or ""], font_size + 3, font)
    width = 2 * border + sum(widths) + gap * (columns - 1)
    lines = _wrapped(title, width - 2 * border, title_face) if title else []
    line_height = font_size + 9
    height = 2 * border + sum(heights) + gap * (len(rows) - 1) + len(lines) * line_height
    canvas = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(canvas)
    y = border
    for line in lines:
        draw.text((border, y), line, fill=INK, font=title_face)
        y += line_height
    for row, height in zip(rows, heights, strict=True):
        x = border
        for column, i in enumerate(row):
            if captions is not None:
                type_face = fonts.of(captions[i])
                draw.text((x, y), cut_text(captions[i], widths[column], type_face), fill=INK, font=type_face)
            canvas.paste(Image.fromarray(images[i]), (x, y + caption_height))
            x += widths[column] + gap
        y += height + gap
    return np.asarray(canvas).copy()


def _wrapped(text: str, width: int, font) -> list[str]:
    """Break a text into lines of at most that width; a single word may be longer."""
    lines: list[str] = []
    for word in text.split():
        if lines and font.getlength(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def cut_text(text: str, width: int, font) -> str:
    """Cut a text wider than `width` pixels, and end it with "..."."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "...") > width:
        text = text[:-1]
    return text + "..."


def save_image(image: np.ndarray, path: str | os.PathLike) -> None:
    """Write the image, completely or not at all, in the format of the file's extension (.png, .jpg, ...).

    Raises:
        ValueError: the extension is not that of an image format that can be written.
    """
    extension = os.path.splitext(os.fspath(path))[1].lower()
    format_name = Image.registered_extensions().get(extension)
    if format_name not in Image.SAVE:
        raise ValueError(f"can't write an image to {path}: extension {extension!r} is unknown; use .png or .jpg")
    with atomic_write(path) as file:
        Image.fromarray(image).save(file, format=format_name, quality=92)
