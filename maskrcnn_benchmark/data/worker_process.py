"""What a data loader's worker sets for its own process."""

from __future__ import annotations

import os
import signal
import sys
import threading

import torch


def start_worker(worker_id: int) -> None:
    """Prepare a worker; for DataLoader's worker_init_fn."""
    use_one_thread()
    leave_signals_to_the_training()


def use_one_thread() -> None:
    """Compute in one thread: more would take the cores from the training and from the other workers."""
    torch.set_num_threads(1)
    if "cv2" in sys.modules:
        sys.modules["cv2"].setNumThreads(0)


def leave_signals_to_the_training() -> None:
    """Survive Ctrl-C and SIGTERM to the process group, so that the training can finish its iteration.

    A SIGTERM of the training itself, by which DataLoader ends a worker that does not end on its own, still ends it.
    When the training is gone, torch ends its workers within seconds.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if not hasattr(signal, "sigwaitinfo"):  # Windows, macOS
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_end_when_the_training_says_so, daemon=True).start()


def _end_when_the_training_says_so() -> None:
    while True:
        if signal.sigwaitinfo({signal.SIGTERM}).si_pid == os.getppid():
            os._exit(0)
