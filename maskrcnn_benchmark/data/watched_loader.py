"""A data loader that names worker and image when a worker dies or stops."""

from __future__ import annotations

import signal
import threading
import time
import weakref

import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

# Seconds after which a worker whose connection broke is certainly known to be gone.
GRACE = 5.0

_CAUSES = {
    "SIGKILL": " (the system ends processes that way when memory runs out: fewer DATALOADER.NUM_WORKERS need less)",
    "SIGBUS": " (shared memory ran out, mostly: fewer DATALOADER.NUM_WORKERS need less, or enlarge /dev/shm)",
}

_live: weakref.WeakSet = weakref.WeakSet()


class WorkerError(RuntimeError):
    """A worker of a data loader died, or made no progress for DATALOADER.TIMEOUT seconds."""


class WatchedLoader(DataLoader):
    """Load batches as DataLoader does; errors of workers say which worker, which image, and how it ended.

    Args:
        dataset: a map-style dataset. Its `path(index)` or `image_id(index)`, if it has them, name an image in errors.
        num_workers: worker processes; with 0 nothing is watched.
        timeout: seconds to wait for a batch; 0 waits without limit.
        options: others of DataLoader.

    Raises:
        ValueError: timeout is negative.
        WorkerError: while iterating; see there. Stopped workers are killed, so that the process can end.
    """

    def __init__(self, dataset, num_workers: int = 0, timeout: float = 0, **options):
        if timeout < 0:
            raise ValueError(f"DATALOADER.TIMEOUT is a number of seconds, 0 for no limit, got {timeout}")
        super().__init__(dataset, num_workers=num_workers, **options)
        self._seconds, self._options = timeout, options

    def __iter__(self):
        return _WatchedIterator(self, self._options, self._seconds) if self.num_workers else super().__iter__()


class _WatchedIterator:
    def __init__(self, loader: WatchedLoader, options: dict, timeout: float):
        self.dataset, self.timeout = loader.dataset, timeout
        # since when (s) a batch is waited for, None while none is; why the watchdog ended workers, if it did
        self.waiting: float | None = None
        self.reason: str | None = None
        # one row a worker: index of the image being loaded, plus one; when it began, in ns; 0 between images
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
        if self.dead_workers():  # died while nobody waited for it
            raise WorkerError(self.describe())
        self.waiting = time.monotonic()
        try:
            return next(self.batches)
        except (StopIteration, WorkerError):
            raise
        except Exception as error:
            self.waiting = None
            # a connection breaks a little before its worker is known to be gone
            if "in DataLoader worker process" in str(error) or not self.dead_workers(GRACE, any_end=True):
                raise
            raise WorkerError(self.describe()) from error
        finally:
            self.waiting = None

    def describe(self) -> str:
        """Say why the loader cannot go on, once workers are dead."""
        return self.reason or self._describe_dead()

    def dead_workers(self, wait: float = 0, any_end: bool = False) -> list[tuple[int, int, int]]:
        """Return (worker, process id, exit code) of workers that have ended, waiting up to `wait` seconds for one.

        Args:
            any_end: exit status 0 counts too; torch's workers end so at SIGTERM.
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
            how = f"ended with exit status {code}" + ("" if code else ", as at SIGTERM")
            if code < 0:
                name = signal.Signals(-code).name if -code in list(signal.Signals) else f"signal {-code}"
                how = f"was killed by {name}{_CAUSES.get(name, '')}"
            parts.append(f"worker {k} of the data loader (process {pid}) {how} {self._doing(k)}")
        return "; ".join(parts)

    def end_stopped(self) -> None:
        """Kill the workers that are in the middle of an image; if none is, all. The waiting process then goes on."""
        workers, now = self._workers(), time.monotonic_ns()
        rows = enumerate(zip(workers, self.progress.tolist(), strict=True))
        busy = [(begun, k) for k, (worker, (place, begun)) in rows if place or _is_stopped(worker.pid)]
        parts = []
        for begun, k in sorted(busy):
            stopped = ", which is stopped (SIGSTOP)," if _is_stopped(workers[k].pid) else ""
            seconds = f"for {(now - begun) / 1e9:.0f} s"
            parts.append(f"worker {k} (process {workers[k].pid}){stopped} {self._doing(k)} {seconds}")
        self.reason = (
            f"the data loader has got no batch for {self.timeout:g} s (DATALOADER.TIMEOUT): "
            f"{'; '.join(parts) or 'no worker is loading an image'}. Is the disk or network folder of the images "
            "reachable? A larger DATALOADER.TIMEOUT waits longer, 0 without limit."
        )
        for k in [k for _, k in busy] or range(len(workers)):
            workers[k].kill()

    def _doing(self, worker: int) -> str:
        place = int(self.progress[worker, 0])
        return f"while loading {_describe(self.dataset, place - 1)}" if place else "between two images"

    def _workers(self) -> list:
        return list(getattr(self.batches, "_workers", []))


class _RecordingDataset(Dataset):
    """A dataset whose workers write down which image they are loading."""

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
    """End workers that stopped, once a batch has been waited for longer than `timeout` seconds.

    torch's own timeout does not see a worker that is stopped while it hands over a batch.
    """
    while True:
        iterator = reference()
        if iterator is None or iterator.reason:
            return
        since = iterator.waiting
        if since is not None and time.monotonic() - since > timeout:
            iterator.end_stopped()
        del iterator
        time.sleep(min(timeout / 4, 5))


def _describe(dataset, index: int) -> str:
    """Name an image of a dataset for an error; never fails."""
    name = f"image {index}"
    try:
        image_id = f" (image id {dataset.image_id(index)})" if hasattr(dataset, "image_id") else ""
        name = f"image {dataset.path(index)}" if hasattr(dataset, "path") else name
        return f"{name}{image_id}"
    except Exception:  # a user's dataset, in the middle of another error
        return name


def _is_stopped(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[0] in ("T", "t")
    except (OSError, IndexError):
        return False


def _explain_in_signal_handler() -> None:
    """Keep torch's SIGCHLD handler from raising wherever the process happens to be.

    It raises when a worker has died. Only a process that waits for a batch needs that; others learn of it when they ask
    for the next one.
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
            concerned = [iterator for iterator in list(_live) if iterator.dead_workers()]
            for iterator in concerned:
                if iterator.waiting is not None:
                    raise WorkerError(iterator.describe()) from error
            if not concerned:
                raise

    handler.explains = True
    signal.signal(signal.SIGCHLD, handler)
