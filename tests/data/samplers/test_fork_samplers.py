import pytest
import torch
from torch.utils.data import BatchSampler, RandomSampler, Sampler, SequentialSampler

from maskrcnn_benchmark.data.samplers import (
    DistributedSampler,
    GroupedBatchSampler,
    IterationBasedBatchSampler,
    ShardSampler,
)


class ListSampler(Sampler):
    def __init__(self, order):
        self.order = order

    def __iter__(self):
        return iter(self.order)

    def __len__(self):
        return len(self.order)


GROUPS = [0, 0, 1, 0, 1, 1, 0, 1, 1, 0]


def test_grouped_batches_equal_the_forks(units):
    case = units["grouped_batches"]
    for size, key in ((2, "batch2"), (3, "batch3")):
        assert list(GroupedBatchSampler(ListSampler(case["order"]), case["groups"], size)) == case[key]


def test_grouped_batches_in_order():
    assert list(GroupedBatchSampler(SequentialSampler(GROUPS), GROUPS, 3)) == [[0, 1, 3], [2, 4, 5], [6, 9], [7, 8]]


def test_uneven_batches_can_be_dropped():
    assert list(GroupedBatchSampler(SequentialSampler(GROUPS), GROUPS, 3, True)) == [[0, 1, 3], [2, 4, 5]]


def test_sampler_may_cover_a_part():
    batches = list(GroupedBatchSampler(ListSampler([5, 0, 6, 1, 3, 8]), GROUPS, 3))
    assert batches == [[5, 8], [0, 6, 1], [3]]


@pytest.mark.parametrize("drop_uneven", [False, True])
def test_length_is_that_of_the_next_pass(rng_seed, drop_uneven):
    batches = GroupedBatchSampler(RandomSampler(range(10)), GROUPS, 3, drop_uneven)
    assert len(batches) == len(list(batches))
    passed = list(batches)
    assert len(batches) == len(list(batches)) and passed
    first, second = list(batches), list(batches)
    assert all(len({GROUPS[i] for i in batch}) == 1 for batch in first + second)


def test_random_order_differs_for_each_pass(rng_seed):
    groups = [i % 2 for i in range(100)]
    batches = GroupedBatchSampler(RandomSampler(range(100)), groups, 3)
    assert list(batches) != list(batches)


def test_grouped_batch_sampler_requires_a_sampler():
    with pytest.raises(ValueError, match="Sampler, got list"):
        GroupedBatchSampler([1, 2], [0, 0], 2)


def test_iteration_based_batches_equal_the_forks(units):
    case = units["iteration_based"]
    inner = BatchSampler(SequentialSampler(range(5)), 2, drop_last=False)
    batches = IterationBasedBatchSampler(inner, case["num_iterations"], case["start_iter"])
    assert list(batches) == case["batches"]


@pytest.mark.parametrize("iterations", [4, 6, 9])
def test_iteration_based_length_and_restarts(iterations):
    batches = IterationBasedBatchSampler(
        GroupedBatchSampler(SequentialSampler(GROUPS), GROUPS, 3), num_iterations=iterations
    )
    assert len(batches) == len(list(batches)) == iterations


def test_set_epoch_is_called_with_the_iteration():
    class Listening(ListSampler):
        heard = []

        def set_epoch(self, epoch):
            self.heard.append(epoch)

    sampler = Listening([0, 1, 2, 3])
    list(IterationBasedBatchSampler(BatchSampler(sampler, 2, False), 5, start_iter=1))
    assert sampler.heard == [1, 3]


def test_an_empty_inner_sampler_is_an_error_not_a_hang():
    with pytest.raises(ValueError, match="no batch"):
        list(IterationBasedBatchSampler(BatchSampler(ListSampler([]), 2, False), 3))


def test_distributed_parts_are_contiguous_slices_of_the_permutation():
    samplers = [DistributedSampler(range(10), num_replicas=3, rank=r) for r in range(3)]
    for sampler in samplers:
        sampler.set_epoch(7)
    order = torch.randperm(10, generator=torch.Generator().manual_seed(7)).tolist()
    assert sum((list(sampler) for sampler in samplers), []) == order + order[:2]
    assert [len(sampler) for sampler in samplers] == [4, 4, 4]


def test_distributed_without_shuffling_and_with_fewer_samples_than_processes():
    assert list(DistributedSampler(range(5), 2, 1, shuffle=False)) == [3, 4, 0]
    assert [list(DistributedSampler(range(1), 4, r, shuffle=False)) for r in range(4)] == [[0]] * 4


def test_shards_cover_each_sample_once():
    shards = [list(ShardSampler(7, 3, rank)) for rank in range(3)]
    assert shards == [[0, 3, 6], [1, 4], [2, 5]]
