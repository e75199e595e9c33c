"""Start and end a script of tools/: arguments, configuration, processes, device, log, exit status."""

from __future__ import annotations

import argparse
import logging
import os
import re
import shlex
import sys
from collections.abc import Callable

import torch
import torch.distributed as dist

from maskrcnn_benchmark.config import cfg as default_cfg
from maskrcnn_benchmark.config import check_values, notes
from maskrcnn_benchmark.engine import process, stopping
from maskrcnn_benchmark.engine.rendezvous import fresh_store
from maskrcnn_benchmark.native.collect_env import collect_env_info
from maskrcnn_benchmark.utils.comm import get_rank, get_world_size, is_main_process
from maskrcnn_benchmark.utils.logger import setup_logger
from maskrcnn_benchmark.utils.miscellaneous import mkdir


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
    process.prepare(logger, on_cpu=cfg.MODEL.DEVICE == "cpu", keep_memory=cfg.KEEP_FREED_MEMORY)
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
    if several_processes():
        # Pickled objects and flags go over gloo also where gradients go over NCCL.
        backend = "cpu:gloo,cuda:nccl" if device.startswith("cuda") else "gloo"
        store, rank, world_size = fresh_store()
        dist.init_process_group(backend=backend, store=store, rank=rank, world_size=world_size)


def leave_processes() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def run(main: Callable[[], None], continues: bool = False) -> None:
    """Run a script's `main`, and end the process as a shell expects it.

    SIGTERM and Ctrl-C end with one line and the status 143 or 130; a training has written a checkpoint then.

    Args:
        continues: the same command continues a run that was stopped, which the line then says.
    """
    status = 0
    try:
        with stopping.immediate():
            main()
    except stopping.Stopped as stopped:
        status = stopped.code
        if is_main_process():
            print(_farewell(stopped, continues), file=sys.stderr)
    if several_processes():
        process.end(status)
    sys.exit(status)


def _farewell(stopped: stopping.Stopped, continues: bool) -> str:
    text = f"Stopped by {stopped.signal_name}."
    if continues:
        command = "the same torchrun command" if several_processes() else shlex.join(sys.orig_argv)
        text += f" To go on from the last checkpoint in OUTPUT_DIR: {command}"
    return text


def several_processes() -> bool:
    """Return whether torchrun has started this process as one of several."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1
