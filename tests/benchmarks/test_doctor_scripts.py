"""Scripts about the doctor: planted mistakes, and many small photographs."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskrcnn_benchmark.doctor.duplicates import duplicate_findings
from maskrcnn_benchmark.doctor.examine import config_of_file, read_splits
from maskrcnn_benchmark.doctor.findings import Example

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(autouse=True)
def scripts(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def test_planted_mistakes_are_known_by_kind():
    from label_mistakes import are_right, plant

    rows = [{"id": k, "image_id": k % 4, "category_id": 1 + k % 2, "bbox": [10 * k, 5, 8, 6]} for k in range(40)]
    content = {"annotations": json.loads(json.dumps(rows)), "categories": [{"id": 1}, {"id": 2}]}
    planted = plant(content, 0.1, seed=3)
    assert {kind: len(boxes) for kind, boxes in planted.items()} == {"class": 4, "deleted": 4, "shifted": 4}
    before, after = ({row["id"]: row for row in some} for some in (rows, content["annotations"]))
    assert len(before.keys() - after.keys()) == 4
    assert sum(before[k]["category_id"] != row["category_id"] for k, row in after.items()) == 4
    assert sum(before[k]["bbox"] != row["bbox"] for k, row in after.items()) == 4
    image, x, y, w, h = planted["deleted"][0]
    examples = [Example("a", image, boxes=((x + dx, y, x + dx + w - 1, y + h - 1),)) for dx in (0, 100)]
    assert are_right(examples, planted["deleted"]) == [True, False]


def test_planted_mistake_counts_once():
    from label_mistakes import are_right

    planted = [(1, 10, 10, 20, 20), (1, 14, 10, 20, 20), (2, 10, 10, 20, 20)]
    at_both = Example("a", 1, boxes=((10, 10, 29, 29),))
    elsewhere = Example("a", 1, boxes=((60, 60, 79, 79),))
    assert are_right([at_both, elsewhere, at_both, at_both], planted) == [True, False, True, False]
    nearer_first = Example("a", 1, boxes=((14, 10, 33, 29),))
    at_the_other_only = Example("a", 1, boxes=((2, 10, 29, 29),))
    assert are_right([nearer_first, at_the_other_only], planted) == [True, True]


def test_small_photographs_are_distinct_but_for_the_copies_that_were_asked_for(tmp_path):
    from make_small_photos import write

    rng = np.random.default_rng(0)
    (tmp_path / "sources").mkdir()
    for number in range(3):
        pixels = rng.integers(0, 255, (60, 80, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((640, 480), Image.Resampling.BICUBIC).save(tmp_path / f"sources/{number}.jpg")
    sources = sorted((tmp_path / "sources").glob("*.jpg"))
    write(tmp_path / "out", sources, 150, seed=1, boxes=3, repeat=20, workers=1)
    (split,) = read_splits(config_of_file(str(tmp_path / "out" / "instances.json"), None), False)
    assert len(split.given.image_ids) == 150 and not split.dataset.report.findings("dropped")[1:]
    (finding,) = duplicate_findings([split])
    assert 1 <= finding.count <= 20
    again = tmp_path / "again"
    write(again, sources, 150, seed=1, boxes=3, repeat=20, workers=1)
    for name in ("instances.json", "images/0000/00000003.jpg"):
        assert (again / name).read_bytes() == (tmp_path / "out" / name).read_bytes()
