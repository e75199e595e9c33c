import datetime
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch.distributed as dist

from maskrcnn_benchmark.engine.rendezvous import agree_on_token


def meet(store, world_size, late=None):
    """Return the tokens by rank; rank `late` starts after the others."""

    def process(rank):
        if rank == late:
            time.sleep(0.1)
        return agree_on_token(store, rank, world_size, datetime.timedelta(seconds=20))

    with ThreadPoolExecutor(world_size) as pool:
        return list(pool.map(process, range(world_size)))


@pytest.mark.parametrize("late", [None, 0, 1, 2])
def test_every_start_agrees_on_a_new_token(late):
    store = dist.HashStore()
    agreed = []
    for _ in range(4):
        tokens = meet(store, 3, late)
        assert len(set(tokens)) == 1
        agreed.append(tokens[0])
    assert len(set(agreed)) == 4


def test_leftovers_of_a_failed_start_are_ignored():
    store = dist.HashStore()
    store.set("hello/1", "number of a dead process")
    assert len(set(meet(store, 2, late=1))) == 1


def test_single_process_does_not_wait():
    assert meet(dist.HashStore(), 1)[0]


def test_missing_process_is_an_error():
    with pytest.raises(TimeoutError, match=r"rank \[1\] did not come"):
        agree_on_token(dist.HashStore(), 0, 2, datetime.timedelta(seconds=0.1))
