"""Log lines in the forks' format, on stdout and in a file."""

from __future__ import annotations

import logging
import os
import sys

# logger.info(..., extra=FILE_ONLY) goes to the log file and not to stdout.
FILE_ONLY = {"file_only": True}
FORMAT = "%(asctime)s %(name)s %(levelname)s: %(message)s"
# Other names of the package (see fcos_core) under which programs request its log lines.
ALIASES = {"fcos_core": "maskrcnn_benchmark"}


class _UnderAlias(logging.Formatter):
    """Formatter that writes the names of the package's loggers with `alias` instead of `name`."""

    def __init__(self, alias: str, name: str):
        super().__init__(FORMAT)
        self.alias = alias
        self.name = name

    def format(self, record: logging.LogRecord) -> str:
        if record.name == self.name or record.name.startswith(f"{self.name}."):
            record = logging.makeLogRecord({**record.__dict__, "name": self.alias + record.name[len(self.name) :]})
        return super().format(record)


def setup_logger(
    name: str, save_dir: str, distributed_rank: int, filename: str = "log.txt", stdout_level: int = logging.DEBUG
) -> logging.Logger:
    """Send the lines of logger `name` and its children to stdout and, given a `save_dir`, append them to a file in it.

    Lines below `stdout_level` are not sent to stdout. Only rank 0 gets handlers. A second call replaces the handlers of
    the first, so that lines are not repeated. An alias of the package, "fcos_core", gets the package's lines under that
    name.
    """
    logger = logging.getLogger(name)
    loggers = [logger, logging.getLogger(ALIASES[name])] if name in ALIASES else [logger]
    for each in loggers:
        each.setLevel(logging.DEBUG)
    if distributed_rank > 0:
        return logger
    formatter = _UnderAlias(name, ALIASES[name]) if name in ALIASES else logging.Formatter(FORMAT)
    stdout = logging.StreamHandler(stream=sys.stdout)
    stdout.addFilter(lambda record: not getattr(record, "file_only", False))
    _replace_handler(loggers, "stdout", stdout, formatter, stdout_level)
    if save_dir:
        os.makedirs(save_dir, exist_ok=True)
        _replace_handler(loggers, "file", logging.FileHandler(os.path.join(save_dir, filename)), formatter)
    return logger


def _replace_handler(
    loggers: list[logging.Logger], kind: str, handler: logging.Handler, formatter, level: int = logging.DEBUG
) -> None:
    handler.set_name(f"{loggers[-1].name}.{kind}")
    handler.setLevel(level)
    handler.setFormatter(formatter)
    for logger in loggers:
        for old in [h for h in logger.handlers if h.get_name() == handler.get_name()]:
            logger.removeHandler(old)
            old.close()  # a StreamHandler leaves its stream open
        logger.addHandler(handler)
