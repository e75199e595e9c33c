"""Stop a run at SIGTERM or Ctrl-C without losing its results.

A signal ends a run at once by raising `Stopped`. Inside `deferred()` the first signal only sets a flag, so that a loop
can finish its iteration and save. A second signal ends the process at once.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
from typing import NoReturn

logger = logging.getLogger("maskrcnn_benchmark.stopping")

NAMES = {signal.SIGTERM: "SIGTERM", signal.SIGINT: "Ctrl-C"}


class Stopped(SystemExit):
    """A signal ended the run. If it is not caught, the process exits with the shell's status for the signal (143, 130).

    Attributes:
        signal_name: "SIGTERM" or "Ctrl-C".
    """

    def __init__(self, number: int):
        super().__init__(128 + number)
        self.signal_name = NAMES[number]


class StopRequest:
    """The first signal received inside `deferred()`. It is true after a signal has arrived.

    Attributes:
        number: number of the signal, or 0.
        honoured: whether `honour` has been called.
    """

    def __init__(self):
        self.number = 0
        self.honoured = False

    def __bool__(self) -> bool:
        return self.number > 0

    def honour(self, outcome: str = "") -> NoReturn:
        """Raise `Stopped`. Every process must call it, whether it has received a signal or not.

        Args:
            outcome: if given, the log gets "Stopped by Ctrl-C <outcome>", for example "at iteration 7 of 10; ...".
        """
        from maskrcnn_benchmark.utils.comm import all_gather  # not at the top: it imports torch, which is slow

        self.honoured = True
        stopped = Stopped(max(all_gather(self.number)))
        if outcome:
            logger.info("Stopped by %s %s", stopped.signal_name, outcome)
        raise stopped

    def on_any_process(self) -> bool:
        """Return whether any process has received a signal. Every process must call it."""
        from maskrcnn_benchmark.utils.comm import all_gather

        return any(all_gather(bool(self)))


_current: StopRequest | None = None


@contextlib.contextmanager
def deferred(what: str = "this iteration"):
    """Turn the first SIGTERM or Ctrl-C inside the block into a request; a second one ends the process.

    Nested blocks share one request. The end of the outermost block restores the former signal handlers, and raises
    `Stopped` if the request has not been honoured. Outside the main thread the block has no effect, because Python
    delivers no signals there.

    Args:
        what: what the run finishes before it stops, for the line printed when the signal arrives.

    Yields:
        StopRequest, true after a signal has arrived.
    """
    global _current
    if _current is not None:
        yield _current
        return
    request = StopRequest()

    def ask(number, _frame):
        if request:
            end_at_once(number)
        request.number = number
        _ignore_dead_children()
        if os.environ.get("RANK", "0") == "0":
            # Not by print or logging: the signal may have interrupted either.
            os.write(2, f"\n{NAMES[number]}: stopping after {what}; a second one ends at once\n".encode())

    with _handlers(ask):
        _current = request
        try:
            yield request
        except RuntimeError as error:
            # The signal has ended other processes as well: loader workers, or peers of a distributed run.
            if not request or request.honoured:
                raise
            logger.warning("Could not finish %s after %s: %s", what, NAMES[request.number], error)
        finally:
            _current = None
    if request and not request.honoured:
        raise Stopped(request.number)


@contextlib.contextmanager
def immediate():
    """Make SIGTERM and Ctrl-C raise `Stopped` inside the block; its end restores the former signal handlers."""

    def stop(number, _frame):
        _ignore_dead_children()
        for each in NAMES:
            signal.signal(each, lambda number, _frame: end_at_once(number))
        raise Stopped(number)

    with _handlers(stop):
        yield


def end_at_once(number: int) -> None:
    """End the process by the default action of a signal, without clean-up."""
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


@contextlib.contextmanager
def _handlers(handler):
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    watched = [*NAMES, *([signal.SIGCHLD] if hasattr(signal, "SIGCHLD") else [])]
    before = {number: signal.getsignal(number) for number in watched}
    for number in NAMES:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number, old in before.items():
            # A SIGCHLD handler that others have set inside the block (torch's loader does) stays.
            if old is not None and (number in NAMES or signal.getsignal(number) is _do_nothing):
                signal.signal(number, old)


def _ignore_dead_children() -> None:
    """Prevent torch's data loader from raising in the middle of a step.

    A signal to the whole process group also ends loader workers. torch then raises from its SIGCHLD handler, at any
    point of the main thread.
    """
    if hasattr(signal, "SIGCHLD") and callable(signal.getsignal(signal.SIGCHLD)):
        signal.signal(signal.SIGCHLD, _do_nothing)


def _do_nothing(_number, _frame):
    pass
