import json

from maskrcnn_benchmark.data.datasets.report import DatasetReport, all_examples

BOXES = "boxes clipped to the image"


def recorded(report: DatasetReport) -> dict:
    return json.loads(json.dumps(report.to_record()))


def test_recorded_warnings_are_renamed_only_where_they_name_the_dataset():
    first, second = DatasetReport("val"), DatasetReport("val2")
    first.warn("dataset val: 3 images are in the folder of dataset valley")
    first.warn("dataset valley is beside it")
    second.add_recorded(recorded(first))
    assert second.warnings == [
        "dataset val2: 3 images are in the folder of dataset valley",
        "dataset valley is beside it",
    ]


def test_recorded_findings_are_added_to_those_of_the_report():
    first, second = DatasetReport("first"), DatasetReport("second")
    first.add("repaired", BOXES, [1, 2, 3], hint="a hint")
    first.add("dropped", BOXES, [4])
    second.add("repaired", BOXES, ["a", "b"])
    second.add_recorded(recorded(first))
    (repaired,), (dropped,) = second.findings("repaired"), second.findings("dropped")
    assert repaired.count == 5 and repaired.examples == ["a", "b", 1, 2, 3]
    assert dropped.count == 1 and dropped.examples == [4]


def test_a_recorded_report_is_complete_and_independent():
    first, second = DatasetReport("first"), DatasetReport("second")
    first.add("repaired", BOXES, range(9), "rows", "a hint")
    record = recorded(first)
    second.add_recorded(record)
    assert second.findings("repaired") == first.findings("repaired")
    second.add("repaired", BOXES, [10])
    assert record == recorded(first)


def test_examples_beyond_the_limit_are_not_added_after_all_were_kept():
    report = DatasetReport("bees")
    with all_examples():
        report.add("repaired", BOXES, list(range(8)))
    report.add("repaired", BOXES, list(range(8, 20)))
    (finding,) = report.findings("repaired")
    assert finding.count == 20 and finding.examples == list(range(8))
