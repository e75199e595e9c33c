"""Start a script of tools/: arguments, config, processes, device, log."""

from __future__ import annotations

import argparse
import logging
import os
import re

import torch
import torch.distributed as dist

from maskrcnn_benchmark.config import cfg as default_cfg
from maskrcnn_benchmark.config import check_values, notes
from maskrcnn_benchmark.engine import process, script
from maskrcnn_benchmark.engine.rendezvous import fresh_store
from maskrcnn_benchmark.engine.run_lock import RunLock
from maskrcnn_benchmark.native.collect_env import collect_env_info
from maskrcnn_benchmark.utils.comm import all_gather, get_rank, get_world_size, is_main_process
from maskrcnn_benchmark.utils.logger import FILE_ONLY, setup_logger
from maskrcnn_benchmark.utils.miscellaneous import mkdir


def make_parser(description: str) -> argparse.ArgumentParser:
    """Make a parser with the arguments of the scripts that read a config."""
    parser = script.make_parser(description)
    parser.add_argument("--config-file", default="", metavar="FILE", help="path to a YAML config file")
    parser.add_argument(
        "--local_rank",
        "--local-rank",
        type=int,
        default=0,
        help="set by python -m torch.distributed.launch; torchrun sets the environment variable LOCAL_RANK instead",
    )
    parser.add_argument(
        "opts", nargs=argparse.REMAINDER, help="config overrides, KEY VALUE KEY VALUE ..., after all other options"
    )
    return parser


def load_config(config_file: str, opts: list[str]):
    """Merge the config file and the command line into a copy of the default config; the result is not frozen."""
    cfg = default_cfg.clone()
    if config_file:
        cfg.merge_from_file(config_file)
    cfg.merge_from_list(opts)
    check_values(cfg)
    return cfg


def start(cfg, args: argparse.Namespace, log_dir: str, lock: bool = False) -> logging.Logger:
    """Join the process group, choose the device, set up the process and open the log.

    The environment and the full config go to log.txt only; stdout gets a few lines.

    Args:
        cfg: config. MODEL.DEVICE is set to "cpu" if torch finds no GPU.
        args: arguments of `make_parser`.
        log_dir: folder of log.txt; "" logs to stdout only.
        lock: refuse to run if another training writes to `log_dir`. The lock is held until `script.run` ends.

    Returns:
        The package's logger.

    Raises:
        ValueError: MODEL.DEVICE is not a device, `log_dir` is a file, or another training uses `log_dir`.
    """
    if not re.fullmatch(r"cpu|cuda(:\d+)?", cfg.MODEL.DEVICE):
        raise ValueError(f"MODEL.DEVICE is {cfg.MODEL.DEVICE!r}; it should be 'cpu', 'cuda' or 'cuda:N'")
    device_missing = cfg.MODEL.DEVICE.startswith("cuda") and not torch.cuda.is_available()
    if device_missing:
        cfg.MODEL.DEVICE = "cpu"
    join_processes(cfg.MODEL.DEVICE, int(os.environ.get("LOCAL_RANK", args.local_rank)))
    if os.path.isfile(log_dir):
        raise ValueError(f"OUTPUT_DIR {log_dir!r} is a file; it should be a folder, which is created if missing")
    mkdir(log_dir)
    setup_logger("maskrcnn_benchmark", "", get_rank())
    if lock and log_dir:
        hold_lock(log_dir)
    logger = setup_logger("maskrcnn_benchmark", log_dir, get_rank())
    if cfg.MODEL.DEVICE.startswith("cuda"):
        logger.info("Using %d GPUs", get_world_size())
    else:
        logger.info("Using %d CPU processes", get_world_size())
    process.prepare(logger, on_cpu=cfg.MODEL.DEVICE == "cpu", keep_memory=cfg.KEEP_FREED_MEMORY)
    if device_missing and is_main_process():
        logger.warning("MODEL.DEVICE is 'cuda' but torch finds no GPU: using the CPU instead (MODEL.DEVICE cpu)")
    if cfg.MODEL.USE_SYNCBN and get_world_size() > 1 and cfg.MODEL.DEVICE == "cpu":
        logger.warning("MODEL.USE_SYNCBN has no effect on the CPU: each process normalizes over its own images only")
    if is_main_process():
        log_settings(cfg, args, logger)
        if log_dir:
            logger.info("Environment and full config: %s", os.path.join(log_dir, "log.txt"))
    return logger


def log_settings(cfg, args: argparse.Namespace, logger: logging.Logger) -> None:
    """Log arguments, environment, config file and config: in full to the log file, summarized to stdout."""
    logger.info(args, extra=FILE_ONLY)
    logger.info("Collecting env info (might take some time)", extra=FILE_ONLY)
    environment = collect_env_info()
    logger.info("\n%s", environment, extra=FILE_ONLY)
    shown = ("maskrcnn_benchmark: ", "torch: ", "CPU: ", "GPU: ", "CPU kernels: ")
    logger.info("; ".join(line for line in environment.splitlines() if line.startswith(shown)))
    if args.config_file:
        logger.info("Loaded configuration file %s", args.config_file)
        with open(os.path.expanduser(args.config_file), encoding="utf-8") as f:
            logger.info("Its text:\n%s", f.read(), extra=FILE_ONLY)
    for note in notes(cfg, default_cfg):
        logger.warning(note)
    logger.info("Running with config:\n%s", cfg, extra=FILE_ONLY)


def hold_lock(folder: str) -> None:
    """Lock the folder for this training until `script.run` ends. Every process must call it.

    Raises:
        ValueError: another training uses the folder. Raised on rank 0.
        OSError: the folder is not writable. Raised on rank 0.
        SystemExit: status 1, on the other ranks if rank 0 raises.
    """
    error = None
    if is_main_process():
        try:
            script.AT_END.enter_context(RunLock(folder))
        except (ValueError, OSError) as caught:
            error = caught
    if any(all_gather(error is not None)):
        raise error if error is not None else SystemExit(1)


def join_processes(device: str, local_rank: int) -> None:
    """Initialize the process group if torchrun or torch.distributed.launch started several processes.

    Raises:
        ValueError: `device` names one GPU for several processes.
    """
    if device.startswith("cuda"):
        index = torch.device(device).index
        if index is not None and script.several_processes():
            raise ValueError(
                f"MODEL.DEVICE {device!r} puts all processes of torchrun on one GPU; set it to 'cuda', so that each "
                "process uses its own (CUDA_VISIBLE_DEVICES limits the GPUs)"
            )
        torch.cuda.set_device(local_rank if index is None else index)
    if script.several_processes():
        # Pickled objects and flags use gloo, gradients on GPUs use NCCL.
        backend = "cpu:gloo,cuda:nccl" if device.startswith("cuda") else "gloo"
        store, rank, world_size = fresh_store()
        dist.init_process_group(backend=backend, store=store, rank=rank, world_size=world_size)


def leave_processes() -> None:
    """Destroy the process group, if there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()
