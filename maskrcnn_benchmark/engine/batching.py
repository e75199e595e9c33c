"""Group items into batches of equal keys, and return the results in the order of the items."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from concurrent.futures import Executor, Future


def in_equal_batches(
    items: Iterable,
    prepare: Callable,
    key: Callable[..., Hashable],
    run: Callable[[list], list],
    executor: Executor,
    batch_size: int,
    window: int,
) -> Iterator:
    """Yield one result per item, in order.

    Args:
        items: any iterable, also an endless one. An item is read only when the window has room for it.
        prepare: item -> prepared item. Runs in threads of `executor`. If it raises, the exception is the item's result.
        key: prepared item -> key. Only items with equal keys share a batch.
        run: list of prepared items -> list of results of the same length. Runs in the calling thread.
        batch_size: largest batch. Smaller batches occur only where the window or the items end.
        window: most items read ahead of the next result. It bounds the memory.
    """
    window = max(window, batch_size)
    items = iter(items)
    futures: deque[tuple[int, Future]] = deque()
    waiting: dict[Hashable, list[tuple[int, object]]] = {}  # incomplete batches by key
    results: dict[int, object] = {}
    taken = yielded = 0
    exhausted = False
    try:
        while True:
            while not exhausted and taken - yielded < window:
                try:
                    item = next(items)
                except StopIteration:
                    exhausted = True
                    break
                futures.append((taken, executor.submit(prepare, item)))
                taken += 1
            while yielded in results:
                yield results.pop(yielded)
                yielded += 1
            if yielded == taken and exhausted:
                return
            if not exhausted and taken - yielded < window:
                continue
            batch = None
            if futures:
                index, future = futures.popleft()
                error = future.exception()
                if error is not None:
                    results[index] = error
                    continue
                prepared = future.result()
                group = waiting.setdefault(key(prepared), [])
                group.append((index, prepared))
                if len(group) >= batch_size:
                    batch = waiting.pop(key(prepared))
            elif waiting:
                # the batch with the oldest item first: all later results wait for that item
                oldest = min(waiting, key=lambda each: waiting[each][0][0])
                batch = waiting.pop(oldest)
            if batch:
                for (index, _), result in zip(batch, run([each for _, each in batch]), strict=True):
                    results[index] = result
    finally:
        for _, future in futures:
            future.cancel()
