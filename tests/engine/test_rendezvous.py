import datetime
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch.distributed as dist

from maskrcnn_benchmark.engine.rendezvous import agree_on_token


def meet(store, world_size, late=None):
    """Tokens by rank; rank `late` comes after the others."""

    def process(rank):
        if rank == late:
            time.sleep(0.1)
        return agree_on_token(store, rank, world_size, datetime.timedelta(seconds=20))

    with ThreadPoolExecutor(world_size) as pool:
        return list(pool.map(process, range(world_size)))


@pytest.mark.parametrize("late", [None, 0, 1, 2])
def test_every_generation_has_a_word_of_its_own_whoever_comes_last(late):
    store = dist.HashStore()
    words = []
    for _ in range(4):
        tokens = meet(store, 3, late)
        assert len(set(tokens)) == 1
        words.append(tokens[0])
    assert len(set(words)) == 4


def test_generation_that_never_met_does_no_harm():
    store = dist.HashStore()
    store.set("hello/1", "number of the dead")
    assert len(set(meet(store, 2, late=1))) == 1


def test_one_process_waits_for_nobody():
    assert meet(dist.HashStore(), 1)[0]


def test_missing_process_is_an_error():
    with pytest.raises(TimeoutError, match=r"rank \[1\] did not come"):
        agree_on_token(dist.HashStore(), 0, 2, datetime.timedelta(seconds=0.1))
