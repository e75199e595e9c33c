import random
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from maskrcnn_benchmark.engine.batching import in_equal_batches


def run_all(items, batch_size, window, prepare=lambda item: item, key=lambda item: item % 3):
    batches = []

    def run(batch):
        batches.append(batch)
        return [-item for item in batch]

    with ThreadPoolExecutor(3) as executor:
        return list(in_equal_batches(items, prepare, key, run, executor, batch_size, window)), batches


def test_results_are_in_order_and_batches_have_equal_keys(rng_seed):
    items = [random.randrange(1000) for _ in range(200)]

    def prepare(item):
        time.sleep(random.random() / 1000)
        return item

    results, batches = run_all(items, 4, 16, prepare)
    assert results == [-item for item in items]
    assert all(len({item % 3 for item in batch}) == 1 and len(batch) <= 4 for batch in batches)
    assert len(batches) < 120  # most are full


def test_item_with_a_rare_key_runs_when_the_window_is_full():
    taken = []

    def items():
        for k in range(300):
            taken.append(k)
            yield 1 if k == 0 else 3

    with ThreadPoolExecutor(1) as executor:
        run = in_equal_batches(items(), lambda x: x, lambda x: x, lambda batch: batch, executor, 4, 16)
        assert next(run) == 1
        assert len(taken) <= 17
        run.close()


def test_exception_in_prepare_is_the_result_of_its_item():
    def prepare(item):
        if item == 2:
            raise ValueError("two")
        return item

    results, _ = run_all([1, 2, 4], 2, 4, prepare)
    assert results[0] == -1 and results[2] == -4 and isinstance(results[1], ValueError)


def test_exception_of_the_iterable_is_raised():
    def items():
        yield 1
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        run_all(items(), 1, 4)


def test_empty_iterable_yields_nothing():
    assert run_all([], 2, 4) == ([], [])
