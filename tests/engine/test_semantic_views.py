import pytest
import torch
from torch import nn
from torch.nn import functional as F

from maskrcnn_benchmark.config import cfg as defaults
from maskrcnn_benchmark.engine.semantic_views import SegmentByViews, make_semantic_views
from maskrcnn_benchmark.structures.image_list import to_image_list


class Pixelwise(nn.Module):
    """Return the channels of the image as logits, so that a view only resamples them."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def logits(self, images):
        images = to_image_list(images)
        self.seen.append(tuple(images.tensors.shape))
        return images.tensors.clone()


class Neighbourhood(Pixelwise):
    """Return logits that depend on neighbouring pixels, and so on the borders of windows."""

    def logits(self, images):
        return F.avg_pool2d(super().logits(images), 5, stride=1, padding=2)


def classes(views, images, **more):
    return [torch.from_numpy(result.get_field("semantic").unpack()) for result in views(images, **more)]


def image(height, width):
    return torch.randn(3, height, width) * 3


@pytest.mark.parametrize("mode", ["whole", "slide", "auto"])
def test_every_pixel_gets_its_class(mode):
    images = [image(50, 70), image(33, 20), image(90, 91)]
    views = SegmentByViews(Pixelwise(), mode, whole_max_pixels=4000, window=(32, 40))
    for found, each in zip(classes(views, to_image_list(images)), images, strict=True):
        assert (found == each.argmax(dim=0)).all() and found.dtype == torch.uint8


def test_mirrored_views_are_mirrored_back():
    each = image(30, 41)
    for mode in ("whole", "slide"):
        views = SegmentByViews(Pixelwise(), mode, window=(16, 16), h_flip=True)
        assert (classes(views, [each])[0] == each.argmax(dim=0)).all()
    assert len(views.views) == 2


def test_windows_average_the_probabilities_where_they_overlap():
    each = image(23, 31)
    model = Neighbourhood()
    found = classes(SegmentByViews(model, "slide", window=(10, 12), overlap=0.5), [each])[0]
    total, count = torch.zeros(3, 23, 31), torch.zeros(23, 31)
    for top in (0, 5, 10, 13):
        for left in (0, 6, 12, 18, 19):
            part = F.avg_pool2d(each[None, :, top : top + 10, left : left + 12], 5, stride=1, padding=2)[0]
            total[:, top : top + 10, left : left + 12] += part.softmax(dim=0)
            count[top : top + 10, left : left + 12] += 1
    average = total / count
    top_two = average.topk(2, dim=0).values
    decided = top_two[0] - top_two[1] > 1e-6
    assert (found == average.argmax(dim=0))[decided].all() and decided.float().mean() > 0.99
    assert set(model.seen) == {(1, 3, 10, 12)}


def test_scales_average_probabilities_at_the_size_of_the_image():
    each = F.interpolate(image(6, 8)[None], (48, 64), mode="bilinear")[0]
    model = Pixelwise()
    found = classes(SegmentByViews(model, "whole", scales=(0.5, 1.0), h_flip=True), [each])[0]
    assert model.seen == [(1, 3, 24, 32)] * 2 + [(1, 3, 48, 64)] * 2
    small = F.interpolate(each[None], (24, 32), mode="bilinear", antialias=True)
    small = F.interpolate(small, (48, 64), mode="bilinear")[0].softmax(dim=0)
    average = small + each.softmax(dim=0)
    assert (found == average.argmax(dim=0)).float().mean() > 0.99


def test_whole_images_are_padded_as_in_training():
    model = Pixelwise()
    views = SegmentByViews(model, "whole", pad_to=(60, 64))
    images = [image(50, 64), image(60, 40)]
    for found, each in zip(classes(views, to_image_list(images)), images, strict=True):
        assert (found == each.argmax(dim=0)).all()
    assert model.seen == [(2, 3, 60, 64)]  # equal sizes share a batch
    classes(views, [image(70, 20)])
    assert model.seen[-1] == (1, 3, 70, 64)


def test_output_size_uses_nearest_neighbour_interpolation():
    each = image(10, 12)
    views = SegmentByViews(Pixelwise(), "whole")
    (found,) = classes(views, [each], output_sizes=[(24, 20)])
    assert (found == each.argmax(dim=0).repeat_interleave(2, 0).repeat_interleave(2, 1)).all()


def test_builder_reads_the_config():
    config = defaults.clone()
    config.merge_from_list(["TEST.SEMANTIC.MODE", "slide", "TEST.SEMANTIC.SCALES", "(0.75, 1)"])
    views = make_semantic_views(config, Pixelwise())
    assert views.mode == "slide" and views.views == [(0.75, False), (1.0, False)] and views.window == (513, 513)
    with pytest.raises(ValueError, match="mode must be one of"):
        SegmentByViews(Pixelwise(), "windows")
