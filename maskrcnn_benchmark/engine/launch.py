"""What every script in tools/ does first: arguments, configuration, processes, device, threads, log."""

from __future__ import annotations

import argparse
import logging
import os
import re
import sys
from collections.abc import Callable

import torch
import torch.distributed as dist

from maskrcnn_benchmark.config import cfg as default_cfg
from maskrcnn_benchmark.config import check_values, notes
from maskrcnn_benchmark.engine.rendezvous import fresh_store
from maskrcnn_benchmark.native.collect_env import collect_env_info
from maskrcnn_benchmark.utils.comm import get_rank, get_world_size, is_main_process
from maskrcnn_benchmark.utils.kept_memory import keep_freed_memory
from maskrcnn_benchmark.utils.logger import setup_logger
from maskrcnn_benchmark.utils.miscellaneous import mkdir

THREADS_VARIABLE = "MB_NUM_THREADS"


def make_parser(description: str) -> argparse.ArgumentParser:
    """The arguments that all scripts share."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config-file", default="", metavar="FILE", help="path to a YAML config file")
    parser.add_argument(
        "--local_rank",
        "--local-rank",
        type=int,
        default=0,
        help="set by python -m torch.distributed.launch; torchrun sets the environment variable LOCAL_RANK instead",
    )
    parser.add_argument(
        "opts", nargs=argparse.REMAINDER, help="changes to the config, KEY VALUE KEY VALUE ..., after all other options"
    )
    return parser


def load_config(config_file: str, opts: list[str]):
    """A copy of the default configuration with the file and the command line merged into it, not frozen."""
    cfg = default_cfg.clone()
    if config_file:
        cfg.merge_from_file(config_file)
    cfg.merge_from_list(opts)
    check_values(cfg)
    return cfg


def start(cfg, args: argparse.Namespace, log_dir: str) -> logging.Logger:
    """Joins the other processes, chooses the device and the ways to compute, and opens the log.

    Args:
        cfg: MODEL.DEVICE becomes "cpu" where torch finds no GPU.
        log_dir: folder of log.txt; "" for stdout only.
    """
    if not re.fullmatch(r"cpu|cuda(:\d+)?", cfg.MODEL.DEVICE):
        raise ValueError(f"MODEL.DEVICE is {cfg.MODEL.DEVICE!r}; it should be 'cpu', 'cuda' or 'cuda:N'")
    device_missing = cfg.MODEL.DEVICE.startswith("cuda") and not torch.cuda.is_available()
    if device_missing:
        cfg.MODEL.DEVICE = "cpu"
    join_processes(cfg.MODEL.DEVICE, int(os.environ.get("LOCAL_RANK", args.local_rank)))
    mkdir(log_dir)
    logger = setup_logger("maskrcnn_benchmark", log_dir, get_rank())
    if cfg.MODEL.DEVICE.startswith("cuda"):
        logger.info("Using %d GPUs", get_world_size())
    else:
        logger.info("Using %d CPU processes", get_world_size())
        choose_threads(logger)
        if cfg.KEEP_FREED_MEMORY:
            keep_freed_memory()
    if device_missing and is_main_process():
        logger.warning("MODEL.DEVICE is 'cuda' but torch finds no GPU: going on with the CPU (MODEL.DEVICE cpu)")
    if cfg.MODEL.USE_SYNCBN and get_world_size() > 1 and cfg.MODEL.DEVICE == "cpu":
        logger.warning("MODEL.USE_SYNCBN has no effect on the CPU: batch norms see the pictures of their own process")
    logger.info(args)
    if is_main_process():
        logger.info("Collecting env info (might take some time)")
        logger.info("\n%s", collect_env_info())
    if args.config_file:
        with open(os.path.expanduser(args.config_file), encoding="utf-8") as f:
            logger.info("Loaded configuration file %s\n%s", args.config_file, f.read())
    for note in notes(cfg, default_cfg):
        logger.warning(note)
    logger.info("Running with config:\n%s", cfg)
    return logger


def join_processes(device: str, local_rank: int) -> None:
    """Makes the process group that torchrun (or torch.distributed.launch) has prepared, if it started several."""
    if device.startswith("cuda"):
        torch.cuda.set_device(torch.device(device).index or local_rank)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        # Pickled objects and flags go over gloo also where gradients go over NCCL.
        backend = "cpu:gloo,cuda:nccl" if device.startswith("cuda") else "gloo"
        store, rank, world_size = fresh_store()
        dist.init_process_group(backend=backend, store=store, rank=rank, world_size=world_size)


def leave_processes() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def run(main: Callable[[], None]) -> None:
    """Runs a script's `main`; one of several processes that has done its work then ends without delay.

    DistributedDataParallel never lets go of its process group, so that gloo's threads live on while the interpreter is
    taken down, and now and then abort it ("terminate called without an active exception", torch 2.15). torchrun would
    take that for a failure, and start everything again.
    """
    main()
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        end_process()


def end_process() -> None:
    """Ends the process with status 0 and without taking the interpreter down; everything has to be closed."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def choose_threads(logger: logging.Logger) -> None:
    """Sets the number of CPU threads of this process and says it.

    MB_NUM_THREADS counts if set. torchrun sets OMP_NUM_THREADS=1 when it starts several processes and the user has not
    set it, which would leave most cores idle; that 1 is replaced by an equal share of the cores. It cannot be told from
    a 1 that the user set: for one thread set MB_NUM_THREADS=1.
    """
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
            raise ValueError(f"{THREADS_VARIABLE} is {chosen!r}: want a number of threads, 1 or more")
        torch.set_num_threads(int(chosen))
    logger.info(
        "Using %d CPU threads per process on %d cores (%s; %s=N changes it)",
        torch.get_num_threads(),
        usable_cores(),
        reason,
        THREADS_VARIABLE,
    )


def usable_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
