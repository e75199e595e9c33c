import random

import numpy as np
import torch

from maskrcnn_benchmark.data.seeding import ORDER, SAMPLE, seeded, stream_seeds


def draw():
    return random.random(), float(np.random.rand()), float(torch.rand(()))


def seed_everything(seed):
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def test_streams_differ_by_every_number():
    keys = [(ORDER, 0, 0), (SAMPLE, 0, 0), (SAMPLE, 0, 0, 0), (SAMPLE, 0, 0, 1), (SAMPLE, 0, 1, 0), (SAMPLE, 1, 0, 0)]
    seeds = [seed for key in keys for seed in stream_seeds(*key)]
    # SeedSequence pads with zeros. Keys of one purpose have the same length, so only (SAMPLE, 0, 0) may repeat here.
    assert len(set(seeds)) == len(seeds) - 3
    assert stream_seeds(SAMPLE, 4, 5, 6) == stream_seeds(SAMPLE, 4, 5, 6)


def test_a_stream_is_reproducible_and_global_states_are_restored(rng_seed):
    state = draw()
    seed_everything(rng_seed)
    with seeded(SAMPLE, 1, 2, 3):
        first = draw()
    with seeded(SAMPLE, 1, 2, 3):
        assert draw() == first
    with seeded(SAMPLE, 1, 2, 4):
        assert draw() != first
    assert draw() == state


def test_state_is_restored_after_an_error(rng_seed):
    state = draw()
    seed_everything(rng_seed)
    try:
        with seeded(SAMPLE, 0):
            raise KeyError
    except KeyError:
        assert draw() == state
