"""Log lines in the forks' format, on stdout and in a file."""

from __future__ import annotations

import logging
import os
import sys

FORMAT = "%(asctime)s %(name)s %(levelname)s: %(message)s"


def setup_logger(name: str, save_dir: str, distributed_rank: int, filename: str = "log.txt") -> logging.Logger:
    """Sends the lines of logger `name` and its children to stdout and, given a `save_dir`, to a file in it (appended).

    Only rank 0 gets handlers. A second call replaces the handlers of the first, so no line comes twice.
    """
    logger = logging.getLogger(name)
    logger.setLevel(logging.DEBUG)
    if distributed_rank > 0:
        return logger
    _replace_handler(logger, "stdout", logging.StreamHandler(stream=sys.stdout))
    if save_dir:
        os.makedirs(save_dir, exist_ok=True)
        _replace_handler(logger, "file", logging.FileHandler(os.path.join(save_dir, filename)))
    return logger


def _replace_handler(logger: logging.Logger, name: str, handler: logging.Handler) -> None:
    handler.set_name(f"{logger.name}.{name}")
    handler.setLevel(logging.DEBUG)
    handler.setFormatter(logging.Formatter(FORMAT))
    for old in [h for h in logger.handlers if h.get_name() == handler.get_name()]:
        logger.removeHandler(old)
        old.close()  # a StreamHandler leaves its stream open
    logger.addHandler(handler)
