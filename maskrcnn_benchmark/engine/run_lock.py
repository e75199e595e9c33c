"""Keep two trainings out of one OUTPUT_DIR.

The lock is a small JSON file. It names its owner (host, process, start), and its owner touches it every BEAT seconds. A
lock without a living owner is taken over: on the same machine if the process is gone or another one has its number,
elsewhere if the file was not touched for STALE seconds. Locks of the operating system are not used, because shared
disks differ in how well they support those.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import logging
import os
import shutil
import socket
import threading
import time
import uuid

FILE_NAME = "training.lock"
BEAT = 15.0
STALE = 120.0
SETTLE = 0.3
_POLL = 0.5

logger = logging.getLogger("maskrcnn_benchmark.run_lock")


class FolderInUse(ValueError):
    """Another training that is running writes into the folder."""


class RunLock:
    """Hold OUTPUT_DIR/training.lock from construction to `release`.

    Args:
        folder: existing folder.

    Raises:
        FolderInUse: a living process holds the lock; the message names host, process and since when.
        OSError: the folder cannot be written.
    """

    def __init__(self, folder: str):
        self.path = os.path.join(folder, FILE_NAME)
        self.token = uuid.uuid4().hex
        self._process = os.getpid()
        self._acquire()
        self._released = threading.Event()
        threading.Thread(target=self._beat, name="training.lock", daemon=True).start()

    def release(self) -> None:
        """Remove the lock if it is still ours. A forked child's call does nothing."""
        if os.getpid() != self._process or self._released.is_set():
            return
        self._released.set()
        if _read(self.path).get("token") == self.token:
            with contextlib.suppress(FileNotFoundError):
                os.remove(self.path)

    def __enter__(self) -> RunLock:
        return self

    def __exit__(self, *_error) -> None:
        self.release()

    def _acquire(self) -> None:
        owner_file = f"{self.path}.{self.token}"
        try:
            with open(owner_file, "x", encoding="utf-8") as file:
                json.dump(_this_owner(self.token), file)
            while not _create(self.path, owner_file):
                dead = self._dead_owner()
                if dead is None or _read(self.path) != dead:
                    continue
                # Several may take over at once: the last one has the lock, and the others see that after a moment.
                shutil.copyfile(owner_file, f"{owner_file}.new")
                os.replace(f"{owner_file}.new", self.path)
                time.sleep(SETTLE)
                if _read(self.path).get("token") == self.token:
                    logger.info("Ignoring the lock of %s in OUTPUT_DIR: it is gone", _describe(dead))
                    break
        finally:
            os.remove(owner_file)

    def _dead_owner(self) -> dict | None:
        """Return what the lock of an owner that is gone says; None if there is no lock any more.

        Raises:
            FolderInUse: its owner lives.
        """
        owner, touched = _read(self.path), _touched(self.path)
        if touched is None:
            return None
        same_machine = owner.get("machine") == _machine() is not None
        alive = _is_running(owner.get("process"), owner.get("started")) if same_machine else None
        if alive is None:
            alive = self._is_touched_soon(owner, touched)
        if alive:
            raise FolderInUse(
                f"OUTPUT_DIR {os.path.dirname(self.path)!r} is in use by another training: {_describe(owner)}, since "
                f"{owner.get('since', '?')}. Wait for it to end, stop it, or set another OUTPUT_DIR. "
                f"(Remove {self.path} only if no such process runs.)"
            )
        return owner

    def _is_touched_soon(self, owner: dict, touched: float) -> bool:
        """Watch a lock of another machine until its owner touches it (True), or has not for STALE seconds (False)."""
        told = False
        while (age := self._now_on_the_disk() - touched) < STALE:
            if not told:
                text = "%s is held by %s: waiting up to %.0f s for a sign of life"
                logger.info(text, self.path, _describe(owner), STALE - age)
                told = True
            time.sleep(_POLL)
            now = _touched(self.path)
            if now is None:
                return False
            if now != touched:
                return True
        return False

    def _now_on_the_disk(self) -> float:
        """Return the clock that stamps files there: a file server's may differ from ours."""
        probe = f"{self.path}.{self.token}.now"
        with open(probe, "w"):
            pass
        try:
            return os.stat(probe).st_mtime
        finally:
            os.remove(probe)

    def _beat(self) -> None:
        while not self._released.wait(BEAT):
            try:
                if _read(self.path).get("token") != self.token:
                    logger.error(
                        "%s is no longer this training's: another one has started in the same OUTPUT_DIR", self.path
                    )
                    return
                os.utime(self.path)
            except OSError as error:  # a disk that is away for a moment
                logger.warning("Could not touch %s: %s", self.path, error)


def _create(path: str, content: str) -> bool:
    """Give the file `content` the name `path` as well; return False if there is a file of that name already."""
    try:
        os.link(content, path)
    except FileExistsError:
        return False
    except OSError:  # a disk without hard links
        try:
            with open(content, "rb") as source, open(path, "xb") as file:
                file.write(source.read())
        except FileExistsError:
            return False
    return True


def _this_owner(token: str) -> dict:
    return {
        "host": socket.gethostname(),
        "process": os.getpid(),
        "since": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "machine": _machine(),
        "started": _start_of(os.getpid()),
        "token": token,
    }


def _describe(owner: dict) -> str:
    return f"process {owner.get('process', '?')} on {owner.get('host', '?')}"


def _read(path: str) -> dict:
    """Return what a lock says; nothing if it is missing or damaged."""
    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _touched(path: str) -> float | None:
    try:
        with open(path) as file:  # opened, so that a network disk asks its server
            return os.fstat(file.fileno()).st_mtime
    except FileNotFoundError:
        return None


def _machine() -> str | None:
    """Identify the running system in which process numbers count: host, boot and, in a container, its name space."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            boot = file.read().strip()
        return f"{socket.gethostname()} {boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:  # not a Linux
        return None


def _start_of(process: int) -> str | None:
    """Return when a process started, in the kernel's own unit; None if it is gone or a zombie, or unknown."""
    try:
        with open(f"/proc/{process}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]


def _is_running(process, started) -> bool:
    """Return whether the process that wrote a lock of this machine is running."""
    return isinstance(process, int) and started is not None and _start_of(process) == started
