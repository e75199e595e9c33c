"""Set up the process of a data loader's worker."""

from __future__ import annotations

import os
import signal
import sys
import threading

import torch


def start_worker(worker_id: int) -> None:
    """Set up a worker; DataLoader's worker_init_fn."""
    leave_signals_to_the_training()  # first: threads inherit the signal mask
    use_one_thread()


def use_one_thread() -> None:
    """Limit torch and OpenCV to one thread; more would compete with the training and the other workers."""
    torch.set_num_threads(1)
    if "cv2" in sys.modules:
        sys.modules["cv2"].setNumThreads(0)


def leave_signals_to_the_training() -> None:
    """Ignore Ctrl-C and SIGTERM sent to the process group, so that the training can finish its iteration.

    A SIGTERM from the training process still ends the worker: DataLoader sends it to workers that do not exit on their
    own. When the training process is gone, torch ends its workers within seconds.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if not hasattr(signal, "sigwaitinfo"):  # Windows, macOS
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    # Blocked in this thread, SIGTERM still reaches sigwaitinfo. A thread of a library that does not block it would
    # otherwise run torch's handler, which ends the worker.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    threading.Thread(target=_exit_on_sigterm_from_training, daemon=True).start()


def _exit_on_sigterm_from_training() -> None:
    while True:
        if signal.sigwaitinfo({signal.SIGTERM}).si_pid == os.getppid():
            os._exit(0)
