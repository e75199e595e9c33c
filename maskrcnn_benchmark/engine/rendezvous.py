"""Processes of one generation find each other, also in a store that still holds what a former one left.

When torchrun restarts its workers it keeps the key-value store through which they exchange their addresses (torch 2.15:
one TCPStore an agent, without a prefix for the attempt). A worker that is quicker than its peer then reads the address
of the peer's dead predecessor, and the restarted run fails with "Gloo connectFullMesh failed ... Connection refused".
The number of restarts in the environment cannot serve as a prefix: agents on several nodes count differently.
"""

from __future__ import annotations

import datetime
import time
import uuid

import torch.distributed as dist

POLL_SECONDS = 0.02


def fresh_store(timeout: datetime.timedelta = datetime.timedelta(minutes=10)) -> tuple[dist.Store, int, int]:
    """(store, rank, number of processes) for `init_process_group`, from the environment that torchrun sets."""
    store, rank, world_size = next(iter(dist.rendezvous("env://", timeout=timeout)))
    return dist.PrefixStore(agree_on_token(store, rank, world_size, timeout), store), rank, world_size


def agree_on_token(store: dist.Store, rank: int, world_size: int, timeout: datetime.timedelta) -> str:
    """A word that the processes alive now share and that no former ones used.

    Every process writes a number drawn afresh, rank 0 answers each number it finds with its word, also those of the
    dead, and goes on when every rank has confirmed the word. Whoever reads an answer to its own number, or a
    confirmation of its own word, hears a living process.

    Raises:
        TimeoutError, or what `store.wait` raises: a process did not come.
    """
    own = uuid.uuid4().hex
    if rank > 0:
        store.set(f"hello/{rank}", own)
        store.wait([f"answer/{own}"], timeout)
        token = store.get(f"answer/{own}").decode()
        store.set(f"confirmed/{token}/{rank}", "")
        return token
    missing = set(range(1, world_size))
    answered = set()
    end = time.monotonic() + timeout.total_seconds()
    while missing:
        for peer in sorted(missing):
            if store.check([f"hello/{peer}"]):
                number = store.get(f"hello/{peer}").decode()
                if number not in answered:
                    store.set(f"answer/{number}", own)
                    answered.add(number)
            if store.check([f"confirmed/{own}/{peer}"]):
                missing.discard(peer)
        if missing and time.monotonic() > end:
            raise TimeoutError(f"the processes of rank {sorted(missing)} did not come within {timeout}")
        time.sleep(POLL_SECONDS if missing else 0)
    return own
