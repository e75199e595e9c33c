import pytest

from maskrcnn_benchmark.data.datasets import box_dataset


@pytest.fixture
def reads(monkeypatch):
    """The datasets that were read, by name, not mapped."""
    names = []
    check_images = box_dataset.check_images

    def counted(table, root, annotations, source, report, *more):
        names.append(report.name)
        return check_images(table, root, annotations, source, report, *more)

    monkeypatch.setattr(box_dataset, "check_images", counted)
    return names
