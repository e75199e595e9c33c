"""A json is read annotation by annotation or as a whole, with the same outcome."""

import gc
import json

import numpy as np
import pytest
from helpers.odd_coco import odd_content
from helpers.tables import assert_same_table

from maskrcnn_benchmark.data.datasets import coco_json
from maskrcnn_benchmark.data.datasets.coco_annotations import read_coco, table_of
from maskrcnn_benchmark.data.datasets.coco_json import load_json, read_content
from maskrcnn_benchmark.data.datasets.records import ObjectRecord
from maskrcnn_benchmark.data.datasets.report import DatasetReport


def as_text(value):
    return value.decode() if isinstance(value, bytes) else str(value)


def outcome(read):
    """(table or error, report) of read(report)."""
    report = DatasetReport("bees")
    try:
        return read(report), str(report)
    except (ValueError, OSError) as error:
        return f"{type(error).__name__}: {error}", str(report)


def assert_read_alike(path, crowd_masks=False):
    table, report = outcome(lambda report: read_coco(path, report, crowd_masks=crowd_masks))
    whole, of_whole = outcome(lambda report: table_of(load_json(path), path, report, crowd_masks=crowd_masks))
    assert report == of_whole
    if isinstance(whole, str):
        assert table == whole
    else:
        assert_same_table(table, whole)


@pytest.fixture
def forbid_whole(monkeypatch):
    """Make reading as a whole an error."""

    def refuse(path):
        raise AssertionError("read as a whole")

    return lambda: monkeypatch.setattr(coco_json, "load_json", refuse)


@pytest.mark.parametrize("crowd_masks", [False, True])
def test_odd_files_are_read_alike(coco_folder, tmp_path, rng_seed, crowd_masks, forbid_whole):
    for round_number in range(10):
        coco_folder.images.clear()
        content = odd_content(np.random.default_rng((rng_seed, round_number)), coco_folder)
        path = tmp_path / f"{round_number}.json"
        text = json.dumps(content, default=as_text)
        path.write_text(text)
        assert_read_alike(path, crowd_masks)
        path.write_text(text.replace("NaN", "null").replace("Infinity", "7"))
        assert_read_alike(path, crowd_masks)
    forbid_whole()
    assert read_coco(path, DatasetReport("bees")).image_ids


PLAIN = {
    "images": [{"id": 1, "file_name": "a.jpg", "width": 60, "height": 40}],
    "annotations": [{"id": 5, "image_id": 1, "category_id": 1, "bbox": [1, 2, 30, 20]}],
    "categories": [{"id": 1, "name": "bee"}],
}
ENTRY = '{"id": 6, "image_id": 1, "category_id": 1, "bbox": [3, 4, 10, 20], %s}'


@pytest.mark.parametrize(
    "text",
    [
        ENTRY % '"area": NaN',
        ENTRY % '"area": 1e400',
        ENTRY % '"segmentation": "\\ud800"',
        ENTRY % '"area": 123456789012345678901234567890',
        ENTRY % '"iscrowd": 0, "id": 7',
        ENTRY % '"iscrowd": "perhaps"',
        ENTRY % '"note": {"a": [1, {"b": "}, {"}]}, "segmentation": [[1, 2, 30, 2, 30, 22]]',
        "[1, 2]",
        "null",
        '{"id": 6,}',
        '{"id": 6',
    ],
)
def test_an_entry_that_is_not_regular_is_read_or_refused_alike(tmp_path, text):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(PLAIN).replace("20]}]", f"20]}}, {text}]"))
    assert_read_alike(path)


@pytest.mark.parametrize("key", ["images", "annotations", "categories"])
@pytest.mark.parametrize("value", ["null", "{}", "[]", "[1]", "[{}]", "7", '"text"'])
def test_a_list_that_is_not_one_is_refused_alike(tmp_path, key, value):
    path = tmp_path / "a.json"
    path.write_text(json.dumps({**PLAIN, key: "HERE"}).replace('"HERE"', value))
    assert_read_alike(path)
    path.write_text(json.dumps({other: rows for other, rows in PLAIN.items() if other != key}))
    assert_read_alike(path)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "latin-1"])
def test_other_encodings_are_read_alike(tmp_path, encoding):
    path = tmp_path / "a.json"
    content = {**PLAIN, "categories": [{"id": 1, "name": "Bänderschnecke"}], "info": {"by": "Jürgen"}}
    path.write_bytes(json.dumps(content, ensure_ascii=False).encode(encoding))
    assert_read_alike(path)


@pytest.mark.parametrize("text", ["", "[]", "{", "{} {}", "[" * 100_000])
def test_what_is_no_object_is_refused_alike(tmp_path, text):
    path = tmp_path / "a.json"
    path.write_text(text)
    assert_read_alike(path)
    assert_read_alike(tmp_path / "missing.json")
    assert_read_alike(tmp_path)


def test_a_key_that_occurs_twice_counts_as_the_last(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{"annotations": [7], ' + json.dumps(PLAIN)[1:])
    assert_read_alike(path)
    assert len(read_coco(path, DatasetReport("bees")).boxes) == 1


def test_findings_before_an_irregular_entry_count_once(tmp_path):
    path = tmp_path / "a.json"
    entries = [ENTRY % f'"iscrowd": 0, "id": {k}, "category_id": 9' for k in range(5000)]
    entries.append(ENTRY % '"area": NaN')
    path.write_text(json.dumps(PLAIN).replace("20]}]", f"20]}}, {', '.join(entries)}]"))
    report = DatasetReport("bees")
    read_coco(path, report)
    assert report.count("annotations of unknown categories") == 5000
    assert gc.isenabled()


def test_a_reader_of_another_format_yields_records():
    objects = (
        ObjectRecord(id=f"a.txt#{k}", image_id="a", category_id=1, bbox=[1, 2, 30 + k, k - 1]) for k in range(5000)
    )
    content = {**PLAIN, "images": [{"id": "a", "file_name": "a.jpg"}], "annotations": objects}
    report = DatasetReport("bees")
    table = table_of(content, "bees/labels", report)
    assert len(table.boxes) == 4997 and table.boxes[-1].tolist() == [1, 2, 5029, 4999]
    assert "(annotation ids a.txt#0)" in str(report) and report.count("inverted boxes") == 1
    assert report.count("boxes without area (at most one pixel wide or high)") == 2


def test_a_regular_file_is_not_parsed_as_a_whole(tmp_path, forbid_whole):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(PLAIN))
    forbid_whole()
    content = read_content(path, DatasetReport("bees"), lambda data: {**data, "annotations": list(data["annotations"])})
    assert content["annotations"] == [ObjectRecord(5, 1, 1, [1, 2, 30, 20])]
    assert content["images"] == PLAIN["images"] and content["categories"] == PLAIN["categories"]
