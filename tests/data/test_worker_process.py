import signal
import subprocess
import threading
import time

import pytest
import torch
from torch.utils.data import DataLoader

from maskrcnn_benchmark.data.worker_process import start_worker


class Numbers(torch.utils.data.Dataset):
    def __len__(self):
        return 20

    def __getitem__(self, index):
        return index, torch.get_num_threads()


def start_worker_after_a_library_thread(worker_id):
    """Start a thread that does not block SIGTERM, as a library may when it is imported, and then the worker."""
    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
    start_worker(worker_id)


needs_senders = pytest.mark.skipif(
    not hasattr(signal, "sigwaitinfo"), reason="this system does not report the sender of a signal"
)


@needs_senders
def test_sigterm_to_the_group_does_not_reach_threads_of_libraries():
    start = start_worker_after_a_library_thread
    loader = DataLoader(Numbers(), batch_size=1, num_workers=1, prefetch_factor=1, worker_init_fn=start)
    batches = iter(loader)
    next(batches)
    (worker,) = batches._workers
    subprocess.run(["sh", "-c", f"kill -TERM {worker.pid}"], check=True)
    assert [int(index) for index, _ in batches] == list(range(1, 20))


@needs_senders
def test_worker_ignores_signals_to_its_group_but_exits_on_sigterm_from_the_training():
    loader = DataLoader(Numbers(), batch_size=1, num_workers=1, prefetch_factor=1, worker_init_fn=start_worker)
    batches = iter(loader)
    assert next(batches) == [torch.tensor([0]), torch.tensor([1])]
    (worker,) = batches._workers
    for name in ("INT", "TERM"):  # sent by another process, like those of a terminal or of torchrun
        subprocess.run(["sh", "-c", f"kill -{name} {worker.pid}"], check=True)
    assert [int(index) for index, _ in batches] == list(range(1, 20))

    batches = iter(loader)
    next(batches)
    (worker,) = batches._workers
    worker.terminate()
    worker.join(10)
    assert worker.exitcode == 0
