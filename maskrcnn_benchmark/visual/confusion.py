"""Draw confusion matrices as images.

Shapes: K classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from maskrcnn_benchmark.visual.drawing import INK, PAPER, cut_text
from maskrcnn_benchmark.visual.fonts import Fonts

CELL = 40
FONT_SIZE = 13
# Shares of at least this are written in their cells.
WRITTEN_FROM = 0.005
FULL = np.array((24, 78, 143))
# Names longer than this (pixels) are cut.
MAX_NAME = 180


def draw_confusion(matrix: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """Draw a confusion matrix as (H, W, 3) uint8 RGB: a row per true class, a column per predicted class.

    Cells show percentages of the row's pixels. Classes without pixels in row and column are left out.

    Args:
        matrix: (K, K), pixels by (true class, predicted class).
        names: K names.
    """
    kept = np.flatnonzero(matrix.sum(axis=0) + matrix.sum(axis=1))
    matrix, names = matrix[np.ix_(kept, kept)], [names[k] for k in kept]
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    fonts = Fonts(names, FONT_SIZE)
    faces = [fonts.of(name) for name in names]
    names = [cut_text(name, MAX_NAME, face) for name, face in zip(names, faces, strict=True)]
    margin = int(max([face.getlength(name) for name, face in zip(names, faces, strict=True)], default=0)) + 16
    side = CELL * len(names)
    canvas = Image.new("RGB", (margin + side + 12, margin + side + 12 + FONT_SIZE + 10), PAPER)
    draw = ImageDraw.Draw(canvas)
    for k, (name, face) in enumerate(zip(names, faces, strict=True)):
        draw.text((margin - 6, margin + (k + 0.5) * CELL), name, fill=INK, font=face, anchor="rm")
        canvas.paste(_upright(name, face, margin), (margin + k * CELL, 0))
    for row in range(len(names)):
        for column in range(len(names)):
            share = float(shares[row, column])
            color = tuple(int(value) for value in 255 + share * (FULL - 255))
            x, y = margin + column * CELL, margin + row * CELL
            draw.rectangle((x, y, x + CELL, y + CELL), fill=color, outline=(220, 220, 220))
            if share >= WRITTEN_FROM:
                ink = PAPER if share > 0.5 else INK
                draw.text((x + CELL / 2, y + CELL / 2), f"{100 * share:.0f}", fill=ink, font=fonts.common, anchor="mm")
    caption = "rows: true class, columns: predicted class, in percent of the row"
    draw.text((6, margin + side + 14), caption, fill=INK, font=fonts.common)
    return np.asarray(canvas).copy()


def _upright(name: str, font, height: int) -> Image.Image:
    """Draw the name as a column heading, read from bottom to top."""
    strip = Image.new("RGB", (height, CELL), PAPER)
    ImageDraw.Draw(strip).text((6, CELL / 2), name, fill=INK, font=font, anchor="lm")
    return strip.transpose(Image.Transpose.ROTATE_90)
