import pytest

from maskrcnn_benchmark.data.datasets import records
from maskrcnn_benchmark.data.datasets.records import ObjectRecord, batches


def test_records_and_dicts_may_be_mixed():
    rows = [ObjectRecord(id=1, bbox=[1, 2, 3, 4]), {"id": 2, "iscrowd": 1, "other": 5}, ObjectRecord(id=3)]
    (batch,) = batches(rows, "bees.json")
    assert batch == [ObjectRecord(id=1, bbox=[1, 2, 3, 4]), ObjectRecord(id=2, iscrowd=1), ObjectRecord(id=3)]


@pytest.mark.parametrize("first", [ObjectRecord(id=1), {"id": 1}])
def test_any_other_row_is_an_error_with_its_number(monkeypatch, first):
    monkeypatch.setattr(records, "BATCH", 2)
    with pytest.raises(ValueError, match=r"'annotations' of bees\.json: entry 3 is 7; wanted an object"):
        list(batches([first, {"id": 2}, first, 7], "bees.json"))
