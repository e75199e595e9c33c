import pytest

from maskrcnn_benchmark.data.datasets.image_settings import ImageSettings
from maskrcnn_benchmark.data.datasets.records_dataset import RecordsDataset
from maskrcnn_benchmark.data.datasets.sources import Sources


def open_as(kind, folder) -> RecordsDataset:
    images = ImageSettings(exif_rotation="stored")
    sources = Sources(str(folder), {}, lambda: ([], {}))
    return kind(str(folder), "bees.txt", "text", False, name="bees", images=images, sources=sources)


def test_a_subclass_without_a_reader_is_an_error(tmp_path):
    class Unreadable(RecordsDataset):
        pass

    with pytest.raises(TypeError, match="Unreadable.* read_records"):
        open_as(Unreadable, tmp_path)


def test_a_reader_has_the_settings_of_its_dataset(tmp_path):
    class Empty(RecordsDataset):
        def read_records(self, report):
            assert (self.name, self.root, self.annotations) == ("bees", str(tmp_path), "bees.txt")
            assert self.image_settings.exif_rotation == "stored" and report.name == "bees"
            assert self.upright_sizes({}) == {} and not self.reading.keep_empty_images
            return {"categories": [{"id": 7, "name": "bee"}], "images": [], "annotations": []}

    dataset = open_as(Empty, tmp_path)
    assert len(dataset) == 0 and dataset.contiguous_category_id_to_json_id == {1: 7}
