import itertools
from collections import Counter

import numpy as np
import pytest

from maskrcnn_benchmark.data.samplers import TrainingBatchSampler


def indices(batch):
    return [key.index for key in batch]


def random_groups(count=53):
    return np.random.randint(0, 2, count)


def test_an_epoch_has_every_sample_and_repeats_only_to_fill_batches(rng_seed):
    groups = np.array([0] * 30 + [1] * 23)
    sampler = TrainingBatchSampler(groups, 8, num_iterations=7, seed=3)
    assert sampler.batches_per_epoch == 4 + 3
    batches = list(sampler)
    assert all(len(batch) == 8 for batch in batches)
    seen = Counter(index for batch in batches for index in indices(batch))
    assert set(seen) == set(range(53)) and max(seen.values()) == 2
    assert sum(seen.values()) - 53 == 2 + 1  # 30 -> 32, 23 -> 24


def test_batches_do_not_mix_groups(rng_seed):
    groups = random_groups()
    for batch in TrainingBatchSampler(groups, 4, num_iterations=40, seed=rng_seed):
        assert len(set(groups[indices(batch)])) == 1


def test_batches_of_both_groups_are_interleaved(rng_seed):
    groups = np.arange(400) % 2
    epoch = TrainingBatchSampler(groups, 4, num_iterations=100, seed=rng_seed).epoch_batches(0)
    of_batch = groups[epoch[:, 0]]
    assert 20 < (of_batch[1:] != of_batch[:-1]).sum() < 80


def test_group_smaller_than_a_batch_joins_the_largest():
    groups = np.array([0] * 20 + [1] * 2)
    sampler = TrainingBatchSampler(groups, 4, num_iterations=6, seed=0)
    seen = Counter(index for batch in sampler for index in indices(batch))
    assert sampler.batches_per_epoch == 6 and set(seen) == set(range(22)) and max(seen.values()) <= 2


@pytest.mark.parametrize("count", [1, 3])
def test_dataset_smaller_than_a_batch(count):
    batches = list(TrainingBatchSampler([0] * count, 8, num_iterations=5, seed=0))
    assert len(batches) == 5
    for batch in batches:
        assert len(batch) == 8 and set(indices(batch)) == set(range(count))


def test_order_depends_on_seed_and_epoch_only(rng_seed):
    groups = random_groups()

    def order(seed):
        return [tuple(indices(batch)) for batch in TrainingBatchSampler(groups, 4, 60, seed)]

    first = order(5)
    assert order(5) == first and order(6) != first
    per_epoch = TrainingBatchSampler(groups, 4, 60, 5).batches_per_epoch
    assert first[:per_epoch] != first[per_epoch : 2 * per_epoch]


@pytest.mark.parametrize("parts", [1, 2])
def test_start_iteration_skips_batches(rng_seed, parts):
    groups = random_groups()
    whole = list(TrainingBatchSampler(groups, 4, 70, seed=1, accumulation_steps=parts))
    for start in (0, 1, 13, 14, 15, 40, 69, 70):
        tail = TrainingBatchSampler(groups, 4, 70, seed=1, accumulation_steps=parts, start_iteration=start)
        assert list(tail) == whole[start * parts :]
        assert len(tail) == len(whole) == 70 * parts


@pytest.mark.parametrize("world_size, parts", [(2, 1), (1, 4), (2, 3), (4, 2)])
def test_processes_and_parts_together_see_the_batch_of_one_process(rng_seed, world_size, parts):
    groups = random_groups()
    one = list(TrainingBatchSampler(groups, 24, 9, seed=2))
    ranks = [
        list(TrainingBatchSampler(groups, 24, 9, 2, rank=r, world_size=world_size, accumulation_steps=parts))
        for r in range(world_size)
    ]
    for iteration, batch in enumerate(one):
        slices = [ranks[r][iteration * parts + part] for part, r in itertools.product(range(parts), range(world_size))]
        assert {len(piece) for piece in slices} == {24 // world_size // parts}
        assert sum(slices, []) == batch


def test_positions_are_unique_in_an_epoch(rng_seed):
    keys = [key for batch in TrainingBatchSampler(random_groups(), 4, 60, seed=1) for key in batch]
    assert len({(key.epoch, key.position) for key in keys}) == len(keys)


def test_a_batch_size_that_does_not_divide_is_an_error():
    with pytest.raises(ValueError, match=r"IMS_PER_BATCH must be a multiple of 4 \(2 processes x .* 2\).*got 6"):
        TrainingBatchSampler([0] * 9, 6, 10, 0, world_size=2, accumulation_steps=2)


def test_negative_seed_and_no_samples_are_errors():
    with pytest.raises(ValueError, match="SEED must be 0 or more, got -1"):
        TrainingBatchSampler([0] * 9, 2, 10, -1)
    with pytest.raises(ValueError, match="no images"):
        TrainingBatchSampler([], 2, 10, 0)


def test_a_late_start_computes_only_one_epoch():
    sampler = TrainingBatchSampler(np.arange(118_000) % 2, 16, 720_000, seed=0, start_iteration=700_000)
    assert len(next(iter(sampler))) == 16  # one epoch's permutation, not ninety-five
