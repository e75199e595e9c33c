"""Make torchrun restarts safe: use a fresh prefix in the key-value store for every start of the workers.

When torchrun restarts its workers, it keeps the key-value store through which they exchange their addresses (torch
2.15: one TCPStore per agent, without a prefix per attempt). A worker that is faster than its peer then reads the
address of the peer's dead predecessor, and the restarted run fails with "Gloo connectFullMesh failed ... Connection
refused". The number of restarts in the environment cannot be the prefix, because agents on several nodes count
differently.
"""

from __future__ import annotations

import datetime
import time
import uuid

import torch.distributed as dist

POLL_SECONDS = 0.02


def fresh_store(timeout: datetime.timedelta = datetime.timedelta(minutes=10)) -> tuple[dist.Store, int, int]:
    """Return (store, rank, world size) for `init_process_group` from torchrun's environment variables."""
    store, rank, world_size = next(iter(dist.rendezvous("env://", timeout=timeout)))
    return dist.PrefixStore(agree_on_token(store, rank, world_size, timeout), store), rank, world_size


def agree_on_token(store: dist.Store, rank: int, world_size: int, timeout: datetime.timedelta) -> str:
    """Agree on a token that all living processes share and no earlier process has used.

    1. Every rank above 0 writes a random number under its rank.
    2. Rank 0 writes its own random token as the answer to each number that it finds, including those of dead processes.
    3. Every rank reads the answer to its own number, and confirms the token under its rank.
    4. Rank 0 returns when all ranks have confirmed its token.

    Only a living process can answer a number drawn now or confirm a token drawn now.

    Raises:
        TimeoutError: on rank 0, a process did not confirm in time.
        RuntimeError: on other ranks, rank 0 did not answer in time (raised by `store.wait`).
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
