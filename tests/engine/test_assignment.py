import itertools

import numpy as np
import pytest

from maskrcnn_benchmark.engine.assignment import best_pairs


def total(gain, pairs):
    return sum(gain[row, column] for row, column in pairs)


@pytest.mark.parametrize("shape", [(1, 1), (3, 3), (4, 6), (6, 4), (5, 1)])
def test_pairs_have_the_greatest_total_gain(shape):
    seed = np.random.SeedSequence().entropy
    print("seed", seed)
    generator = np.random.default_rng(seed)
    for _ in range(20):
        gain = generator.random(shape) * (generator.random(shape) < 0.6)
        if generator.random() < 0.3:
            gain = gain.round(1)  # equal gains
        wide = gain if shape[0] <= shape[1] else gain.T
        orders = itertools.permutations(range(wide.shape[1]), wide.shape[0])
        best = max(total(wide, enumerate(order)) for order in orders)
        pairs = best_pairs(gain)
        assert total(gain, pairs) == pytest.approx(best)
        assert (np.diff(pairs[:, 0]) > 0).all() and len(set(pairs[:, 1].tolist())) == len(pairs)


def test_no_pair_without_gain():
    assert best_pairs(np.array([[0.0, -1.0], [0.0, 0.5]])).tolist() == [[1, 1]]
    assert best_pairs(np.zeros((0, 3))).shape == best_pairs(np.zeros((3, 0))).shape == (0, 2)


def test_total_gain_is_better_than_greedy_pairing():
    assert best_pairs(np.array([[0.9, 0.8], [0.8, 0.0]])).tolist() == [[0, 1], [1, 0]]
