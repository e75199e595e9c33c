"""Prevent two trainings from writing to the same OUTPUT_DIR.

The lock is a small JSON file that names its owner (host, process, start time). The owner touches it every BEAT seconds.
A lock whose owner is dead is taken over. On the same machine, an owner is dead if its process has ended or its PID was
reused. On another machine, it is dead if the file has not been touched for STALE seconds. Locks of the operating system
are not used, because not all shared disks support them.
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
    """Another running training writes to the folder."""


class RunLock:
    """Lock file OUTPUT_DIR/training.lock, held from construction to `release`.

    Args:
        folder: existing folder.

    Raises:
        FolderInUse: a running process holds the lock. The message has its host, PID and start time.
        OSError: the folder is not writable.
    """

    def __init__(self, folder: str):
        self.path = os.path.join(folder, FILE_NAME)
        self.token = uuid.uuid4().hex
        self._process = os.getpid()
        self._acquire()
        self._released = threading.Event()
        threading.Thread(target=self._beat, name="training.lock", daemon=True).start()

    def release(self) -> None:
        """Remove the lock if this object still owns it. Calls in forked children do nothing."""
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
                # Several processes may take over at once: the last write wins, and the others read it after SETTLE.
                shutil.copyfile(owner_file, f"{owner_file}.new")
                os.replace(f"{owner_file}.new", self.path)
                time.sleep(SETTLE)
                if _read(self.path).get("token") == self.token:
                    logger.info("Ignoring the lock of %s in OUTPUT_DIR: that process has ended", _describe(dead))
                    break
        finally:
            os.remove(owner_file)

    def _dead_owner(self) -> dict | None:
        """Return the content of a lock whose owner is dead; None if the lock has been removed.

        Raises:
            FolderInUse: the owner is alive.
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
                f"(Remove {self.path} only if no such process is running.)"
            )
        return owner

    def _is_touched_soon(self, owner: dict, touched: float) -> bool:
        """Watch the lock of another machine; return False if its owner does not touch it for STALE seconds."""
        logged = False
        while (age := self._now_on_the_disk() - touched) < STALE:
            if not logged:
                text = "%s is held by %s: waiting up to %.0f s for it to be renewed"
                logger.info(text, self.path, _describe(owner), STALE - age)
                logged = True
            time.sleep(_POLL)
            now = _touched(self.path)
            if now is None:
                return False
            if now != touched:
                return True
        return False

    def _now_on_the_disk(self) -> float:
        """Return the time by the clock of the disk: the clock of a file server may differ from ours."""
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
                        "%s no longer belongs to this training: another one has started in the same OUTPUT_DIR",
                        self.path,
                    )
                    return
                os.utime(self.path)
            except OSError as error:  # the disk may be unavailable for a moment
                logger.warning("Could not touch %s: %s", self.path, error)


def _create(path: str, content: str) -> bool:
    """Hard-link the file `content` as `path`; return False if `path` exists."""
    try:
        os.link(content, path)
    except FileExistsError:
        return False
    except OSError:  # the disk has no hard links: copy
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
    """Return the content of a lock; {} if it is missing or damaged."""
    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _touched(path: str) -> float | None:
    """Return the modification time; None if there is no file."""
    try:
        with open(path) as file:  # open() makes a network disk ask its server instead of its cache
            return os.fstat(file.fileno()).st_mtime
    except FileNotFoundError:
        return None


def _machine() -> str | None:
    """Identify the system in which PIDs are unique: host, boot and PID namespace (containers)."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            boot = file.read().strip()
        return f"{socket.gethostname()} {boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:  # not Linux
        return None


def _start_of(process: int) -> str | None:
    """Return the start time of a process in clock ticks since boot; None if it is dead or cannot be read."""
    try:
        with open(f"/proc/{process}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]


def _is_running(process, started) -> bool:
    """Return whether the process with this PID and start time is running on this machine."""
    return isinstance(process, int) and started is not None and _start_of(process) == started
