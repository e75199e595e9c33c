"""Order work into batches of equal keys, and give results back in the order of the work."""

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
    """Yield the result of each item, in order.

    Args:
        items: of any number; taken one by one as there is room.
        prepare: item -> prepared, in threads of `executor`. An exception that it raises is the item's result.
        key: prepared -> key; only prepared items with equal keys share a batch.
        run: batch of prepared -> as many results, in this thread.
        batch_size: at most so many a batch; a batch is full, unless the window or the items end.
        window: items between the next result and the last item taken, so that memory is bounded.
    """
    window = max(window, batch_size)
    items = iter(items)
    futures: deque[tuple[int, Future]] = deque()
    waiting: dict[Hashable, list[tuple[int, object]]] = {}  # by key, in the order of the first of each
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
                # the oldest first: what comes behind it waits for it
                oldest = min(waiting, key=lambda each: waiting[each][0][0])
                batch = waiting.pop(oldest)
            if batch:
                for (index, _), result in zip(batch, run([each for _, each in batch]), strict=True):
                    results[index] = result
    finally:
        for _, future in futures:
            future.cancel()
