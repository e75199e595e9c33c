"""Data loader that reports the worker and the image when a worker dies or hangs."""

from __future__ import annotations

import signal
import threading
import time
import weakref

import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

# Maximum seconds between a worker's broken connection and its exit code becoming visible.
GRACE = 5.0

_CAUSES = {
    "SIGKILL": " (the system kills processes when memory runs out: fewer DATALOADER.NUM_WORKERS use less memory)",
    "SIGBUS": " (usually shared memory ran out: fewer DATALOADER.NUM_WORKERS use less, or enlarge /dev/shm)",
}

_live: weakref.WeakSet = weakref.WeakSet()


class WorkerError(RuntimeError):
    """A worker of a data loader died, or made no progress for DATALOADER.TIMEOUT seconds."""


class WatchedLoader(DataLoader):
    """DataLoader whose errors name the failed worker, the image it was loading and how it exited.

    Args:
        dataset: a map-style dataset. Errors use its `path(index)` and `image_id(index)` if it has them.
        num_workers: worker processes; 0 loads in this process, which is not watched.
        timeout: seconds to wait for a batch; 0 waits without limit.
        options: further options of DataLoader.

    Raises:
        ValueError: timeout is negative.
        WorkerError: while iterating, if a worker died or timed out. Workers that hang are killed, so that the process
            can end.
    """

    def __init__(self, dataset, num_workers: int = 0, timeout: float = 0, **options):
        if timeout < 0:
            raise ValueError(f"DATALOADER.TIMEOUT must be a number of seconds, or 0 for no limit, got {timeout}")
        super().__init__(dataset, num_workers=num_workers, **options)
        self._seconds, self._options = timeout, options

    def __iter__(self):
        return _WatchedIterator(self, self._options, self._seconds) if self.num_workers else super().__iter__()


class _WatchedIterator:
    def __init__(self, loader: WatchedLoader, options: dict, timeout: float):
        self.dataset, self.timeout = loader.dataset, timeout
        # start time (s) of the current wait for a batch, or None
        self.waiting: float | None = None
        # why the watchdog killed workers, or None
        self.reason: str | None = None
        # one row per worker: index + 1 of the image being loaded, 0 between images; its start time in ns
        self.progress = torch.zeros(loader.num_workers, 2, dtype=torch.int64).share_memory_()
        recorded = _RecordingDataset(loader.dataset, self.progress)
        self.batches = iter(DataLoader(recorded, num_workers=loader.num_workers, **options))
        _explain_in_signal_handler()
        _live.add(self)
        if timeout:
            threading.Thread(target=_watch, args=(weakref.ref(self), timeout), daemon=True).start()

    def __iter__(self):
        return self

    def __next__(self):
        if self.dead_workers():  # died between two calls
            raise WorkerError(self.describe())
        self.waiting = time.monotonic()
        try:
            return next(self.batches)
        except (StopIteration, WorkerError):
            raise
        except Exception as error:
            self.waiting = None
            # a connection breaks shortly before the exit of its worker is visible
            if "in DataLoader worker process" in str(error) or not self.dead_workers(GRACE, any_end=True):
                raise
            raise WorkerError(self.describe()) from error
        finally:
            self.waiting = None

    def describe(self) -> str:
        """Explain why the loader cannot continue after workers have died."""
        return self.reason or self._describe_dead()

    def dead_workers(self, wait: float = 0, any_end: bool = False) -> list[tuple[int, int, int]]:
        """Return (worker, process id, exit code) of workers that have exited.

        Args:
            wait: seconds to wait for the first one.
            any_end: include exit status 0, with which torch's workers exit at SIGTERM.
        """
        deadline = time.monotonic() + wait
        while True:
            codes = [(k, worker.pid, worker.exitcode) for k, worker in enumerate(self._workers())]
            dead = [entry for entry in codes if entry[2] is not None and (entry[2] or any_end)]
            if dead or time.monotonic() >= deadline:
                return dead
            time.sleep(0.05)

    def _describe_dead(self) -> str:
        parts = []
        for k, pid, code in self.dead_workers(any_end=True):
            how = f"exited with status {code}" + ("" if code else ", as after SIGTERM")
            if code < 0:
                name = signal.Signals(-code).name if -code in list(signal.Signals) else f"signal {-code}"
                how = f"was killed by {name}{_CAUSES.get(name, '')}"
            parts.append(f"worker {k} of the data loader (process {pid}) {how} {self._doing(k)}")
        return "; ".join(parts)

    def kill_stopped(self) -> None:
        """Kill the workers that are loading an image or stopped, else all, so that the waiting process continues."""
        workers, now = self._workers(), time.monotonic_ns()
        rows = enumerate(zip(workers, self.progress.tolist(), strict=True))
        busy = [(begun, k) for k, (worker, (place, begun)) in rows if place or _is_stopped(worker.pid)]
        parts = []
        for begun, k in sorted(busy):
            stopped = ", which is stopped (SIGSTOP)," if _is_stopped(workers[k].pid) else ""
            seconds = f"for {(now - begun) / 1e9:.0f} s"
            parts.append(f"worker {k} (process {workers[k].pid}){stopped} {self._doing(k)} {seconds}")
        self.reason = (
            f"the data loader received no batch for {self.timeout:g} s (DATALOADER.TIMEOUT): "
            f"{'; '.join(parts) or 'no worker is loading an image'}. Is the disk or network folder of the images "
            "reachable? Increase DATALOADER.TIMEOUT to wait longer; 0 waits without limit."
        )
        for k in [k for _, k in busy] or range(len(workers)):
            workers[k].kill()

    def _doing(self, worker: int) -> str:
        place = int(self.progress[worker, 0])
        return f"while loading {_describe(self.dataset, place - 1)}" if place else "between two images"

    def _workers(self) -> list:
        return list(getattr(self.batches, "_workers", []))


class _RecordingDataset(Dataset):
    """Dataset that records which image each worker is loading."""

    def __init__(self, dataset, progress: torch.Tensor):
        self.dataset, self.progress = dataset, progress

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key):
        row = self.progress[get_worker_info().id]
        index = key[0] if isinstance(key, tuple) else key
        row[1] = time.monotonic_ns()
        row[0] = index + 1
        item = self.dataset[key]
        row[0] = 0
        return item


def _watch(reference, timeout: float) -> None:
    """Kill hanging workers once the wait for a batch exceeds `timeout` seconds.

    torch's own timeout does not detect a worker that stops while it transfers a batch.
    """
    while True:
        iterator = reference()
        if iterator is None or iterator.reason:
            return
        since = iterator.waiting
        if since is not None and time.monotonic() - since > timeout:
            iterator.kill_stopped()
        del iterator
        time.sleep(min(timeout / 4, 5))


def _describe(dataset, index: int) -> str:
    """Return an image's name for an error message; never raises."""
    name = f"image {index}"
    try:
        image_id = f" (image id {dataset.image_id(index)})" if hasattr(dataset, "image_id") else ""
        name = f"image {dataset.path(index)}" if hasattr(dataset, "path") else name
        return f"{name}{image_id}"
    except Exception:  # custom datasets may raise anything; the original error matters more
        return name


def _is_stopped(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[0] in ("T", "t")
    except (OSError, IndexError):
        return False


def _explain_in_signal_handler() -> None:
    """Wrap torch's SIGCHLD handler so that it raises only while the process waits for a batch.

    torch's handler raises wherever the process is when a worker dies. At other times the next request for a batch
    raises instead.
    """
    if not hasattr(signal, "SIGCHLD") or threading.current_thread() is not threading.main_thread():
        return
    before = signal.getsignal(signal.SIGCHLD)
    if getattr(before, "explains", False) or not callable(before):
        return

    def handler(number, frame):
        try:
            before(number, frame)
        except RuntimeError as error:
            affected = [iterator for iterator in list(_live) if iterator.dead_workers()]
            for iterator in affected:
                if iterator.waiting is not None:
                    raise WorkerError(iterator.describe()) from error
            if not affected:
                raise

    handler.explains = True
    signal.signal(signal.SIGCHLD, handler)
