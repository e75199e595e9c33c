import pytest

from maskrcnn_benchmark.data import typical_size as module
from maskrcnn_benchmark.data.typical_size import typical_size


class Sizes:
    def __init__(self, sizes):
        self.sizes, self.looked_up = sizes, 0

    def __len__(self):
        return len(self.sizes)

    def get_img_info(self, index):
        self.looked_up += 1
        return dict(zip(("width", "height"), self.sizes[index], strict=True))


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [([], None), ([(8, 6)], [8, 6]), ([(640, 480), (10, 2000), (480, 640), (4000, 3000), (300, 900)], [480, 640])],
)
def test_size_with_the_median_shorter_side(sizes, expected):
    found = typical_size(Sizes(sizes))
    assert found == expected or {*found} == {*expected}


def test_large_datasets_are_sampled(monkeypatch):
    monkeypatch.setattr(module, "SAMPLED", 10)
    dataset = Sizes([(20 + k, 10 + k) for k in range(95)])
    width, height = typical_size(dataset)
    assert dataset.looked_up <= 2 * 10 and width == height + 10 and 40 <= height <= 70
