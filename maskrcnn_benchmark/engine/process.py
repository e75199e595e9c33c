"""Collect every process-wide setting of a run, with its reason and how to undo it.

Importing the package or building a model changes none of them; tests/engine/test_process.py checks this. The scripts of
tools/ call `before_torch`, and `launch.start` calls `prepare`. The docstrings of the other functions name their caller.

| setting | reason | undone by |
| --- | --- | --- |
| OpenMP threads spin only briefly while they wait | two trainings on one machine block each other | GOMP_SPINCOUNT or OMP_WAIT_POLICY in the environment |
| number of threads | torchrun sets one thread per process | torch.set_num_threads(N) |
| freed memory stays in the process | large tensors reuse pages instead of getting new, zeroed ones | only the end of the process |
| SIGTERM and Ctrl-C (engine/stopping.py) | a run ends with one line and the shell's exit status | the end of `script.run` |
"""  # noqa: E501  # a table

from __future__ import annotations

import contextlib
import logging
import os
import sys
import warnings

# torch is imported in functions, because before_torch must run before the import.

SPIN_VARIABLES = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
SPINS = "1000"
THREADS_VARIABLE = "MB_NUM_THREADS"


def before_torch() -> None:
    """Limit how long OpenMP threads spin while they wait. It has no effect once torch is imported.

    By default libgomp's threads spin for some milliseconds at the end of every parallel loop. With more threads than
    cores, for example two trainings of two threads on two cores, a spinning thread occupies the core that the thread it
    waits for needs: training is 50 times slower (benchmarks/two_trainings.py). 1000 spins take some microseconds, which
    bridges the short gaps between loops; with 0 spins, a training that is alone is up to a fifth slower.
    """
    if not any(name in os.environ for name in SPIN_VARIABLES):
        os.environ["GOMP_SPINCOUNT"] = SPINS


def prepare(logger: logging.Logger, *, on_cpu: bool, keep_memory: bool) -> None:
    """Apply the settings that tools/train_net.py and tools/test_net.py keep until the process ends.

    Args:
        logger: logs the number of threads.
        on_cpu: whether the model runs on the CPU. On a GPU, threads and memory are not changed.
        keep_memory: value of KEEP_FREED_MEMORY.
    """
    if on_cpu:
        choose_threads(logger)
        if keep_memory:
            from maskrcnn_benchmark.utils.kept_memory import keep_freed_memory

            keep_freed_memory()


def choose_threads(logger: logging.Logger) -> None:
    """Set the number of CPU threads of this process and log it.

    MB_NUM_THREADS decides if it is set. Otherwise, if torchrun starts several processes and the user has not set
    OMP_NUM_THREADS, torchrun sets it to 1, which would leave most cores idle. This 1 is replaced by an equal share of
    the cores. A 1 set by the user looks the same; use MB_NUM_THREADS=1 for one thread.

    Raises:
        ValueError: MB_NUM_THREADS is not a positive integer.
    """
    import torch

    chosen = os.environ.get(THREADS_VARIABLE)
    reason = f"{THREADS_VARIABLE} is set"
    if chosen is None:
        reason = "torch's choice"
        processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        if processes > 1 and os.environ.get("OMP_NUM_THREADS") == "1":
            chosen = max(1, usable_cores() // processes)
            reason = "an equal share of the cores instead of torchrun's OMP_NUM_THREADS=1"
    if chosen is not None:
        if not str(chosen).isdigit() or int(chosen) == 0:
            raise ValueError(f"{THREADS_VARIABLE} is {chosen!r}; it should be a number of threads, 1 or more")
        torch.set_num_threads(int(chosen))
    logger.info(
        "Using %d CPU threads per process on %d cores (%s; %s=N changes it)",
        torch.get_num_threads(),
        usable_cores(),
        reason,
        THREADS_VARIABLE,
    )


def usable_cores() -> int:
    """Count the cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextlib.contextmanager
def quiet_about_skipped_steps(scaler):
    """Suppress torch's warning about the order of optimizer and scheduler in a float16 training.

    When the scaler skips an update, usually the first, torch assumes that the calls are in the wrong order. The warning
    filters are restored at the end of the block. The caller is `do_train`.

    Args:
        scaler: torch.amp.GradScaler. If it is disabled, nothing is suppressed.
    """
    if not scaler.is_enabled():
        yield
        return
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step")
        yield


def forget_programs() -> None:
    """Free the programs that torch.compile has cached in this process. `testing.run_test` calls it.

    Otherwise a training with tests would accumulate the programs of every test. A model that is called again is
    compiled again.
    """
    from maskrcnn_benchmark.fast import compiled

    compiled.forget_programs()


def end(status: int = 0) -> None:
    """End the process without shutting the interpreter down. `script.run` calls it if there are several processes.

    DistributedDataParallel keeps its process group alive, so gloo's threads still run while the interpreter shuts down
    and occasionally abort it ("terminate called without an active exception", torch 2.15). torchrun would treat that as
    a failure and restart all processes. Files must be closed before the call.
    """
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
