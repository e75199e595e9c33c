"""Write a diagnosis as one HTML page that needs no other file, with thumbnails of the worst images."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image

from maskrcnn_benchmark.doctor.findings import Diagnosis, Example, Finding, SplitSummary, example_texts
from maskrcnn_benchmark.doctor.splits import Split
from maskrcnn_benchmark.engine.progress import ProgressBar
from maskrcnn_benchmark.visual.drawing import draw_frames, side_by_side

# Thumbnails per finding, their largest side in pixels, and examples in words.
THUMBNAILS = 6
SIDE = 360
IN_WORDS = 20
# If the boxes are smaller than this share of the image, the thumbnail is a crop of ROOM times their side, at least
# LEAST pixels.
TINY = 0.15
ROOM = 5
LEAST = 64
# Colors of the box that a finding is about (magenta is rare in photographs), and of the one that it is compared with.
COLORS = ((235, 10, 170), (30, 110, 235))
# Bars of classes that are not folded away.
BARS = 24
LEGEND = (
    "Magenta boxes are those of the finding. Blue ones are what they are compared with, or what the model predicts."
)

STYLE = """
:root { color-scheme: light dark; --line: #8884; --bar: #3b76d6; --error: #c62828; --warning: #b26a00; --note: #5a6b7b }
body { font: 16px/1.45 system-ui, sans-serif; margin: 0 auto; padding: 1rem; max-width: 72rem; overflow-wrap: anywhere }
h1 { font-size: 1.4rem; margin: 0 0 .25rem } h2 { font-size: 1.1rem; margin: 1.5rem 0 .5rem }
.splits { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 20rem), 1fr)); gap: 1rem 2rem }
.finding { border: 1px solid var(--line); border-left: .35rem solid var(--note); border-radius: .35rem;
  padding: .6rem .8rem; margin: .75rem 0 }
.finding.error { border-left-color: var(--error) } .finding.warning { border-left-color: var(--warning) }
.finding p { margin: .3rem 0 } .severity { font-weight: 600; text-transform: uppercase; font-size: .8rem }
.error .severity { color: var(--error) } .warning .severity { color: var(--warning) }
.where, .words, figcaption, .muted { font-size: .85rem; opacity: .8 }
.thumbnails { display: grid; gap: .6rem;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, clamp(8.5rem, 20vw, 15rem)), 1fr)) }
figure { margin: 0 } figure:only-child { grid-column: 1 / -1; max-width: 20rem }
figure img { width: 100%; height: auto; border-radius: .25rem; display: block }
.bars { display: grid; grid-template-columns: minmax(4rem, max-content) 1fr max-content; gap: .15rem .6rem;
  font-size: .85rem; align-items: center }
.bars i { display: block; height: .7rem; background: var(--bar); min-width: 1px;
  border-radius: .15rem } .bars span:nth-child(3n) { text-align: right; font-variant-numeric: tabular-nums }
summary { cursor: pointer; font-size: .85rem }
"""


def to_html(diagnosis: Diagnosis, splits: Sequence[Split]) -> str:
    """Render a diagnosis as an HTML page.

    Args:
        diagnosis: Diagnosis of the splits.
        splits: those that examples name; their images are decoded for the thumbnails.
    """
    by_name = {split.name: split for split in splits}
    title = html.escape(diagnosis.subject)
    progress = ProgressBar(len(diagnosis.findings), unit="finding")
    findings = []
    for finding in diagnosis.findings:
        findings.append(_finding(finding, by_name))
        progress.advance()
    progress.close()
    summaries = "".join(map(_summary, diagnosis.splits))
    has_boxes = any(example.boxes for finding in diagnosis.findings for example in finding.examples)
    legend = f'<p class="muted">{LEGEND}</p>' if has_boxes else ""
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style></head>\n'
        f"<body><h1>{title}</h1><p>{html.escape(diagnosis.headline())}</p>{legend}\n"
        f'{"".join(findings)}\n<div class="splits">{summaries}</div></body></html>\n'
    )


def _summary(split: SplitSummary) -> str:
    classes = list(split.class_counts.items())
    shown, more = sorted(classes, key=lambda item: -item[1]), ""
    if len(classes) > BARS:
        more = f"<details><summary>{len(classes) - BARS:,} more classes</summary>{_bars(shown[BARS:], shown)}</details>"
    sizes = ""
    if split.sizes:
        sizes = (
            f'<p class="muted">Boxes by size (square root of the area) in {html.escape(split.measured_in)}</p>'
            f"{_bars(list(split.sizes.items()))}"
        )
    by_class = f'<p class="muted">Boxes by class</p>{_bars(shown[:BARS], shown)}{more}' if classes else ""
    return (
        f'<section><h2>{html.escape(split.name)} <span class="muted">({split.role})</span></h2>'
        f"<p>{split.totals}</p>{by_class}{sizes}</section>\n"
    )


def _bars(counts: Sequence[tuple[str, int]], all_counts: Sequence[tuple[str, int]] | None = None) -> str:
    """Return horizontal bars, relative to the largest of `all_counts`."""
    largest = max((count for _, count in all_counts or counts), default=0) or 1
    rows = [
        f'<span>{html.escape(name)}</span><span><i style="width:{100 * count / largest:.1f}%"></i></span>'
        f"<span>{count:,}</span>"
        for name, count in counts
    ]
    return f'<div class="bars">{"".join(rows)}</div>'


def _finding(finding: Finding, splits: Mapping[str, Split]) -> str:
    figures, in_words = [], []
    for example in finding.examples:
        data = None
        if len(figures) < THUMBNAILS and example.image is not None and example.split in splits:
            data = thumbnail(splits, example)
        if data is None:
            in_words.append(example)
        else:
            source = f"data:image/jpeg;base64,{base64.b64encode(data).decode()}"
            text = html.escape(str(example))
            figures.append(
                f'<figure><img src="{source}" alt="{text}" loading="lazy"><figcaption>{text}</figcaption></figure>'
            )
    words = html.escape("; ".join(example_texts(in_words, IN_WORDS)))
    parts = [
        f'<p><span class="severity">{finding.severity}</span> {html.escape(finding.headline)}</p>',
        f'<p class="where">{html.escape(", ".join(finding.splits))}</p>' if finding.splits else "",
        f"<p>{html.escape(finding.remedy)}</p>" if finding.remedy else "",
        f'<div class="thumbnails">{"".join(figures)}</div>' if figures else "",
        _words(words, folded=bool(figures)),
    ]
    return f'<div class="finding {finding.severity}">{"".join(parts)}</div>\n'


def _words(words: str, folded: bool) -> str:
    """Return examples without a thumbnail, folded away below those with one."""
    if not words:
        return ""
    text = f'<p class="words">{words}</p>'
    return f"<details><summary>more</summary>{text}</details>" if folded else text


def thumbnail(splits: Mapping[str, Split], example: Example) -> bytes | None:
    """Return a small JPEG of an example with its boxes, or None if the image cannot be decoded.

    The first box is magenta. Others, which it is compared with, are blue. Around tiny boxes only a part is shown.
    """
    beside = None
    try:
        image = splits[example.split].read_image(example.image)
        if example.beside is not None:
            beside = splits[example.beside[0]].read_image(example.beside[1])
    except OSError:
        return None
    boxes = np.array(example.boxes, dtype=np.float64).reshape(-1, 4)
    left, top, right, bottom = _part(image.size, boxes)
    image = image.crop((left, top, right, bottom))
    factor = SIDE / max(image.size)
    size = tuple(max(1, round(side * factor)) for side in image.size)
    drawn = np.asarray(image.resize(size, Image.Resampling.BILINEAR if factor < 1 else Image.Resampling.NEAREST))
    if len(boxes):
        corners = (boxes + [0, 0, 1, 1] - [left, top, left, top]) * factor
        colors = [COLORS[min(k, len(COLORS) - 1)] for k in range(len(boxes))]
        drawn = draw_frames(drawn, corners.tolist(), colors)
    if beside is not None:
        height = drawn.shape[0]  # also for an image of another size: what is nearly the same looks the same
        width = max(1, round(beside.width * height / beside.height))
        drawn = side_by_side(drawn, np.asarray(beside.resize((width, height), Image.Resampling.BILINEAR)))
    data = io.BytesIO()
    Image.fromarray(drawn).save(data, "JPEG", quality=80)
    return data.getvalue()


def _part(size: tuple[int, int], boxes: np.ndarray) -> tuple[int, int, int, int]:
    """Return left, top, right, bottom of the part of the image to show: all of it, unless the boxes are tiny."""
    if not len(boxes):
        return 0, 0, *size
    low, high = boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0) + 1
    inside = (low < size).all() and (high > 0).all() and np.isfinite(boxes).all()
    side = (high - low).max() if inside else np.inf
    if side >= TINY * max(size):
        return 0, 0, *size
    window = np.minimum(max(ROOM * side, LEAST), size)
    start = np.clip((low + high - window) / 2, 0, np.array(size) - window)
    left, top, right, bottom = (int(round(edge)) for edge in (*start, *(start + window)))
    return left, top, right, bottom
