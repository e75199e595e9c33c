import pytest
from torch.utils.data import RandomSampler, SequentialSampler

from maskrcnn_benchmark.data.build import make_batch_data_sampler, make_data_sampler
from maskrcnn_benchmark.data.samplers import DistributedSampler


class Images:
    """Dataset of images with the given (width, height)."""

    sizes = ((4, 2), (2, 4), (4, 2), (3, 3), (2, 1))

    def __len__(self):
        return len(self.sizes)

    def get_img_info(self, index):
        return dict(zip(("width", "height"), self.sizes[index], strict=True))


def test_sampler_is_chosen_by_shuffle_and_distributed():
    images = Images()
    assert isinstance(make_data_sampler(images, False, False), SequentialSampler)
    assert isinstance(make_data_sampler(images, shuffle=True, distributed=False), RandomSampler)
    shared = make_data_sampler(images, True, True)
    assert isinstance(shared, DistributedSampler) and shared.shuffle


@pytest.mark.parametrize(
    ("grouping", "batches"),
    [
        (False, [[0, 1], [2, 3], [4]]),
        (1, [[0, 2], [1, 3], [4]]),
        ([1, 0.6], [[0, 2], [1, 3], [4]]),
        ([0.5, 1], [[0, 2], [1, 3], [4]]),
        ([2.5], [[0, 1], [2, 3], [4]]),
    ],
)
def test_images_of_a_batch_share_an_aspect_ratio_bin(grouping, batches):
    images = Images()
    sampler = make_data_sampler(images, False, False)
    assert list(make_batch_data_sampler(images, sampler, grouping, 2)) == batches
    counted = make_batch_data_sampler(images, sampler, grouping, 2, num_iters=7, start_iter=3)
    assert len(counted) == 7 and list(counted) == [*batches, batches[0]]
