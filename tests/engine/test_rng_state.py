import random

import numpy as np
import torch

from maskrcnn_benchmark.checkpoint.plain_types import to_plain
from maskrcnn_benchmark.engine import rng_state


def draw():
    return random.random(), random.gauss(0, 1), np.random.rand(), np.random.randn(), torch.rand(()).item()


def test_restored_generators_repeat_their_numbers(rng_seed, tmp_path):
    draw()  # so that the generators have cached a second normal number
    torch.save(to_plain(rng_state.capture()), tmp_path / "state.pth")
    numbers = [draw() for _ in range(3)]
    rng_state.restore(torch.load(tmp_path / "state.pth", weights_only=True))
    assert [draw() for _ in range(3)] == numbers


def test_preserved_restores_all_generators(rng_seed):
    rng_state.seed_everything(rng_seed)
    expected = draw()
    rng_state.seed_everything(rng_seed)
    with rng_state.preserved():
        draw()
    assert draw() == expected


def test_seed_sets_every_generator(rng_seed):
    rng_state.seed_everything(rng_seed)
    numbers = draw()
    rng_state.seed_everything(rng_seed)
    assert draw() == numbers
