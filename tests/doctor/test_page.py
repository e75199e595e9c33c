"""The HTML page: complete in itself, escaped, with the boxes of each finding drawn."""

import base64
import io
from html.parser import HTMLParser

import numpy as np
from helpers.clinic import Clinic
from PIL import Image

from maskrcnn_benchmark.doctor.examine import config_of_file, examine, read_splits
from maskrcnn_benchmark.doctor.findings import Example
from maskrcnn_benchmark.doctor.page import SIDE, THUMBNAILS, thumbnail, to_html


class Page(HTMLParser):
    """Collector of tags, sources and texts."""

    def __init__(self, text: str):
        super().__init__()
        self.tags, self.sources, self.texts, self.open = [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.sources += [value for name, value in attributes if name in ("src", "href")]
        if tag not in ("img", "meta"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def page_of(clinic):
    cfg = config_of_file(clinic.write()["ann_file"], None)
    splits = read_splits(cfg, False)
    text = to_html(examine(cfg, splits, "boxes.json", False), splits)
    return splits, text, Page(text)


def test_the_page_needs_no_other_file_and_is_well_formed(clinic):
    clinic.add_image(1, (200, 100))
    for _ in range(THUMBNAILS + 3):
        clinic.add_box(1, [5, 6, 0, 20])
    for x in (5, 50):
        clinic.add_box(1, [x, 6, 20, 20])
    _, text, page = page_of(clinic)
    assert page.open == [] and len(page.sources) == THUMBNAILS and "url(" not in text and "@import" not in text
    assert all(source.startswith("data:image/jpeg;base64,") for source in page.sources)
    image = Image.open(io.BytesIO(base64.b64decode(page.sources[0].partition(",")[2])))
    assert max(image.size) == SIDE and 'name="viewport"' in text


def test_names_are_escaped(tmp_path):
    clinic = Clinic(tmp_path, categories=("<script>alert(1)</script>", "b & c"))
    clinic.add_image(1)
    clinic.add_box(1, [5, 6, 20, 20])
    _, text, page = page_of(clinic)
    assert "script" not in page.tags and "b & c" in page.texts and "<script>alert(1)</script>" in page.texts


def magenta(pixels) -> np.ndarray:
    pixels = pixels.astype(int)
    return (pixels[..., 0] > 160) & (pixels[..., 1] < 110) & (pixels[..., 2] > 90)


def test_boxes_are_drawn_where_they_are_and_tiny_ones_enlarged(clinic):
    path = clinic.add_image(1, (SIDE, SIDE // 2))
    Image.new("RGB", (SIDE, SIDE // 2), (30, 200, 30)).save(path)
    clinic.add_box(1, [100, 40, 120, 60])
    (split,), _, _ = page_of(clinic)
    example = Example(split.name, 1, boxes=((100, 40, 219, 99),), image=0)
    rows, columns = np.nonzero(magenta(np.asarray(Image.open(io.BytesIO(thumbnail({split.name: split}, example))))))
    assert abs(columns.min() - 100) <= 2 and abs(columns.max() - 220) <= 2
    assert abs(rows.min() - 40) <= 2 and abs(rows.max() - 100) <= 2
    tiny = Example(split.name, 1, boxes=((10, 10, 13, 13),), image=0)
    rows, _ = np.nonzero(magenta(np.asarray(Image.open(io.BytesIO(thumbnail({split.name: split}, tiny))))))
    assert rows.max() - rows.min() > 15


def test_an_image_that_has_become_unreadable_has_no_thumbnail(clinic):
    path = clinic.add_image(1)
    clinic.add_box(1, [5, 6, 20, 20])
    (split,), _, _ = page_of(clinic)
    path.write_bytes(b"")
    assert thumbnail({split.name: split}, Example(split.name, 1, image=0)) is None


def test_two_images_are_shown_side_by_side(clinic):
    for number, size in ((1, (SIDE // 4, SIDE // 8)), (2, (SIDE, SIDE // 2))):
        clinic.add_image(number, size)
        clinic.add_box(number, [5, 6, 20, 20])
    (split,), _, _ = page_of(clinic)
    for index in (0, 1):  # the smaller one is enlarged
        example = Example(split.name, index + 1, image=index, beside=(split.name, 1 - index))
        image = Image.open(io.BytesIO(thumbnail({split.name: split}, example)))
        assert 2 * SIDE < image.width < 2 * SIDE + 10 and image.height == SIDE // 2
