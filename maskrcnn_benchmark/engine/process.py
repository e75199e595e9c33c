"""What a run changes in its process, all of it, with the reason and the way to undo it.

Importing the package or building a model changes none of this; tests/engine/test_process.py compares. The scripts of
tools/ call `before_torch`, `launch.start` calls `prepare`, and the other functions are called where they say.

| what | why | undone by |
| --- | --- | --- |
| OpenMP's threads do not spin while they wait | two trainings on one machine block each other | GOMP_SPINCOUNT or OMP_WAIT_POLICY in the environment |
| number of threads | torchrun sets one thread a process | torch.set_num_threads(N) |
| freed memory stays in the process | large maps reuse pages instead of new zeroed ones | only by another process |
| SIGTERM and Ctrl-C (engine/stopping.py) | a run ends with one line and the shell's status | the end of `script.run` |
"""  # noqa: E501  # a table

from __future__ import annotations

import contextlib
import logging
import os
import sys
import warnings

# torch is imported in functions, so that before_torch can come before it.

SPIN_VARIABLES = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
SPINS = "1000"
THREADS_VARIABLE = "MB_NUM_THREADS"


def before_torch() -> None:
    """Let OpenMP's threads sleep soon while they wait for each other; without effect once torch is imported.

    libgomp's threads spin for some milliseconds at the end of every loop. With more threads than cores, two trainings
    of two threads on two cores for example, a thread then spins through the time in which the one it waits for could
    run: 50 times slower, see benchmarks/two_trainings.py. 1000 spins are some microseconds, which cover the short gaps
    between loops: without any, a training that is alone is up to a fifth slower.
    """
    if not any(name in os.environ for name in SPIN_VARIABLES):
        os.environ["GOMP_SPINCOUNT"] = SPINS


def prepare(logger: logging.Logger, *, on_cpu: bool, keep_memory: bool) -> None:
    """Set what a run of tools/train_net.py or tools/test_net.py needs for its whole life.

    Args:
        logger: gets a line with the number of threads.
        on_cpu: the model runs on the CPU; on a GPU threads and memory stay as torch and the system have them.
        keep_memory: KEEP_FREED_MEMORY.
    """
    if on_cpu:
        choose_threads(logger)
        if keep_memory:
            from maskrcnn_benchmark.utils.kept_memory import keep_freed_memory

            keep_freed_memory()


def choose_threads(logger: logging.Logger) -> None:
    """Set the number of CPU threads of this process and log it.

    MB_NUM_THREADS decides if set. torchrun sets OMP_NUM_THREADS=1 when it starts several processes and the user has not
    set it, which would leave most cores idle; that 1 is replaced by an equal share of the cores. A 1 that the user set
    looks the same: for one thread set MB_NUM_THREADS=1.
    """
    import torch

    chosen = os.environ.get(THREADS_VARIABLE)
    reason = f"{THREADS_VARIABLE} is set"
    if chosen is None:
        reason = "torch's choice"
        processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        if processes > 1 and os.environ.get("OMP_NUM_THREADS") == "1":
            chosen = max(1, usable_cores() // processes)
            reason = "an equal share of the cores in place of torchrun's OMP_NUM_THREADS=1"
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
    """Silence torch's warning about the order of optimizer and scheduler in a float16 training.

    Args:
        scaler: torch.amp.GradScaler; without an enabled one nothing is silenced.

    torch mistakes an update that the scaler skips, usually the first, for a wrong order of calls. The filters return
    at the end of the block.
    """
    if not scaler.is_enabled():
        yield
        return
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step")
        yield


def forget_programs() -> None:
    """Free the programs that torch.compile has made in this process, after each test that compiled its model.

    A training that tests now and then would collect those of every test. Nothing to undo: what is called again is
    compiled again.
    """
    from maskrcnn_benchmark.fast import compiled

    compiled.forget_programs()


def end(status: int = 0) -> None:
    """End the process without taking the interpreter down, at the end of one of several processes.

    DistributedDataParallel never lets go of its process group, so that gloo's threads live on while the interpreter is
    taken down, and now and then abort it ("terminate called without an active exception", torch 2.15). torchrun would
    take that for a failure, and start everything again. Files have to be closed before.
    """
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
