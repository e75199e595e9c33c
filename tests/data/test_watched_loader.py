import os
import signal

import pytest
import torch
from torch.utils.data import Dataset

from maskrcnn_benchmark.data.watched_loader import WatchedLoader, WorkerError


class Images(Dataset):
    """Dataset of numbers; loading item 5 calls `act` in the worker."""

    def __init__(self, act=lambda: None):
        self.act = act

    def __len__(self):
        return 12

    def __getitem__(self, index):
        if index == 5:
            self.act()
        return torch.full((3,), index)

    def path(self, index):
        return f"/images/{index}.jpg"

    def image_id(self, index):
        return 100 + index


def stop():
    os.kill(os.getpid(), signal.SIGSTOP)


def fail():
    raise ValueError("broken image")


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_come_in_order(workers):
    loader = WatchedLoader(Images(), num_workers=workers, timeout=60, batch_size=4)
    assert [batch[:, 0].tolist() for batch in loader] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    assert len(loader) == 3 and isinstance(loader.dataset, Images)


@pytest.mark.parametrize(
    "act, message",
    [
        (lambda: os.kill(os.getpid(), signal.SIGKILL), "was killed by SIGKILL .*memory.*"),
        (lambda: os._exit(7), "exited with status 7 "),
        (lambda: os.kill(os.getpid(), signal.SIGTERM), ".* SIGTERM "),
    ],
)
def test_dead_worker_is_named_with_its_image_and_exit(act, message):
    loader = WatchedLoader(Images(act), num_workers=2, timeout=60, batch_size=4)
    with pytest.raises(WorkerError, match=rf"worker 1 .*{message}while loading image /images/5.jpg \(image id 105\)"):
        list(loader)


def test_stopped_worker_is_named_and_killed():
    loader = WatchedLoader(Images(stop), num_workers=1, timeout=0.5, batch_size=4)
    batches = iter(loader)
    worker = batches._workers()[0]
    with pytest.raises(
        WorkerError, match=r"0.5 s \(DATALOADER.TIMEOUT\): worker 0 .*SIGSTOP.*/images/5.jpg .*105\) for"
    ):
        list(batches)
    worker.join(5)
    assert worker.exitcode == -signal.SIGKILL


def test_errors_of_a_dataset_are_not_changed():
    with pytest.raises(ValueError, match="broken image"):
        list(WatchedLoader(Images(fail), num_workers=1, timeout=60, batch_size=4))


def test_negative_timeout_names_its_key():
    with pytest.raises(ValueError, match="DATALOADER.TIMEOUT"):
        WatchedLoader(Images(), timeout=-1)
