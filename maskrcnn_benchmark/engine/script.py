"""Run a script of tools/, and turn errors and signals into messages and exit statuses.

A user error prints its message without a traceback. SIGTERM and Ctrl-C print one line and exit with the shell's status
for them. This file does not import torch, so that scripts without torch start quickly.
"""

from __future__ import annotations

import argparse
import contextlib
import linecache
import logging
import os
import re
import shlex
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from maskrcnn_benchmark.engine import process, stopping
from maskrcnn_benchmark.utils.logger import FILE_ONLY

ROOT = Path(__file__).resolve().parent.parent.parent
# Message of torch.utils.data for an error in one of its workers.
_IN_WORKER = re.compile(r"Caught \w+ in DataLoader worker process \d+\.\nOriginal Traceback")
_LAST_ERROR = re.compile(r"^(?:\w+\.)*\w*(?:Error|Exception|Iteration|Exit): ", re.MULTILINE)
_FRAME = re.compile(r'^  File "(.+)", line \d+, in .+\n    (.*)$', re.MULTILINE)

# Contexts that `main` enters, and `run` closes at the end.
AT_END = contextlib.ExitStack()

logger = logging.getLogger("maskrcnn_benchmark.script")
# Without a log, the traceback that is meant for log.txt must not be printed.
logger.addHandler(logging.NullHandler())


def make_parser(description: str) -> argparse.ArgumentParser:
    """Make a parser with the options that all scripts share."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--debug", action="store_true", help="print the traceback of errors")
    return parser


def run(main: Callable[[], int | None], continues: bool = False) -> None:
    """Run a script's `main` and exit with its status.

    An error raised by a `raise` in our code prints its message only. Its traceback goes to log.txt, if there is one.
    `--debug` prints it. All other errors print their traceback.

    Args:
        main: function that returns the exit status; None is 0.
        continues: whether the same command resumes an interrupted run. If so, the last line after a signal prints it.
    """
    debug = "--debug" in sys.argv
    if debug:  # removed here because argparse would treat it as a KEY if it came after KEY VALUE pairs
        sys.argv.remove("--debug")
    try:
        with AT_END, stopping.immediate():
            status = main() or 0
    except stopping.Stopped as stopped:
        status = stopped.code
        if os.environ.get("RANK", "0") == "0":
            print(_farewell(stopped, continues), file=sys.stderr)
    except Exception as error:  # noqa: BLE001  # every error is reported
        status = 1
        report(error, debug)
    if several_processes():
        process.end(status)
    if status:
        sys.exit(status)


def several_processes() -> bool:
    """Return whether torchrun started several processes."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def report(error: Exception, debug: bool) -> None:
    """Print an error, and write its traceback to the log file if there is one."""
    text = "".join(traceback.format_exception(error))
    logger.error("The run ended with an error\n%s", text, extra=FILE_ONLY)
    rank = f"[process {os.environ['RANK']}] " if several_processes() else ""
    message = message_for_user(error)
    if debug or message is None:
        print(f"{rank}{text}", end="", file=sys.stderr)
        return
    files = [handler.baseFilename for handler in _handlers() if isinstance(handler, logging.FileHandler)]
    where = f"the traceback is in {os.path.relpath(files[0])}" if files else "--debug shows the traceback"
    print(f"{rank}error: {message}\n({where})", file=sys.stderr)


def message_for_user(error: Exception) -> str | None:
    """Return the message of an error that needs no traceback; None for all others.

    These are errors raised by a `raise` statement in our code, here or in a loader worker, and OSErrors.
    """
    message = str(error)
    if _IN_WORKER.match(message):
        frames, starts = _FRAME.findall(message), [found.end() for found in _LAST_ERROR.finditer(message)]
        if not frames or not starts or not _is_raise(*frames[-1]):
            return None
        return message[starts[-1] :].strip()
    if isinstance(error, OSError):
        return message or type(error).__name__
    frames = traceback.extract_tb(error.__traceback__)
    if not frames or not _is_raise(frames[-1].filename, linecache.getline(frames[-1].filename, frames[-1].lineno)):
        return None
    return message or None


def _is_raise(filename: str, line: str) -> bool:
    """Return whether a line of a traceback is a `raise` in this package or in tools/."""
    path = Path(filename)
    ours = any(path.is_relative_to(ROOT / folder) for folder in ("maskrcnn_benchmark", "tools"))
    return ours and line.strip().startswith("raise ")


def _handlers() -> list[logging.Handler]:
    return logging.getLogger("maskrcnn_benchmark").handlers


def _farewell(stopped: stopping.Stopped, continues: bool) -> str:
    text = f"Stopped by {stopped.signal_name}."
    if continues:
        command = "the same torchrun command" if several_processes() else shlex.join(sys.orig_argv)
        text += f" To continue from the last checkpoint in OUTPUT_DIR: {command}"
    return text
