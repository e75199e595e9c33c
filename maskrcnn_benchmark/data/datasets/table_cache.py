"""Cache a dataset's SampleTable in a file: annotations are read once, and later starts map the file.

The table of NAME.json is `.mb_tables/NAME.json.KEY.table` beside it; that of a folder of annotations is in the folder.
If this cannot be written, the table is in ~/.cache/maskrcnn_benchmark/tables ($XDG_CACHE_HOME replaces ~/.cache).
DATASETS.TABLE_DIR replaces both places. KEY is a hash of paths and settings. The file holds them too, with the state of
the annotation files (sources.py) and the version of the code that read them. It is used if all of these match and its
checksums are right. Otherwise the dataset is read again and the file is replaced.

One process reads while others wait for it on a lock, which the system releases when its owner ends, however it ends.
The file appears complete or not at all. If nothing can be written or locked, every process keeps the table in memory.

Formats, for a table of 23 MB (benchmarks/annotation_table.py --formats): opening takes 0.3 ms, or 5 ms with checksums,
as one file of arrays; 2 ms as .npy files, which cannot be replaced atomically; 127 ms and 32 MB a process as Arrow IPC,
mostly for importing pyarrow, which returns the same NumPy views.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import shlex
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from maskrcnn_benchmark.data.datasets.report import DatasetReport
from maskrcnn_benchmark.data.datasets.sample_table import SampleTable
from maskrcnn_benchmark.data.datasets.sources import Sources, SourceState
from maskrcnn_benchmark.utils.array_file import ArrayFile, ArrayFileError, write_arrays

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

logger = logging.getLogger(__name__)

MODES = ("auto", "always", "never")

# A table is kept for annotation files of at least LARGE bytes together, or at least MANY files. Less is read in under
# half a second, and checking the images at every start finds changed ones.
LARGE, MANY = 4_000_000, 2_000

FOLDER = ".mb_tables"

# Seconds between two attempts to take the lock, and until a waiting process reads the annotations itself.
LOOK, PATIENCE = 0.2, 3600.0


@dataclass(frozen=True)
class TableSettings:
    """Settings for keeping tables.

    Attributes:
        mode: DATASETS.TABLE, one of MODES. "auto": if annotation files have LARGE bytes together, or are MANY.
        folder: DATASETS.TABLE_DIR, the folder of the tables; "" keeps them beside the annotations.

    Raises:
        ValueError: the mode is none of MODES.
    """

    mode: str = "auto"
    folder: str = ""

    def __post_init__(self):
        if self.mode not in MODES:
            raise ValueError(f"DATASETS.TABLE is one of {', '.join(map(repr, MODES))}, got {self.mode!r}")


class TableCache:
    """Table file of one dataset.

    Args:
        sources: files and arguments that the table is made from.
        key: what else the table depends on, such as class and settings of the dataset; JSON-serializable.
        settings: None is TableSettings().
    """

    def __init__(self, sources: Sources, key: dict, settings: TableSettings | None = None):
        self.sources = sources
        self.place = os.path.abspath(sources.place)
        self.key = json.loads(json.dumps({**key, "arguments": sources.arguments}))
        self.settings = settings or TableSettings()

    def get(self, report: DatasetReport, read: Callable[[], SampleTable], rebuild: bool = False) -> SampleTable:
        """Map the table file, or create it first if none matches. If no table can be kept, return the result of `read`.

        Args:
            report: receives the findings of `read`, or those stored in the table.
            read: reads annotations and images, and adds its findings to `report`.
            rebuild: ignore an existing table file and write a new one.

        Raises:
            OSError, ValueError: see `read`.
        """
        state = self._state()
        if state is None:
            return read()
        folders = self._folders()
        if not rebuild:
            for folder in folders:
                table = self._open(os.path.join(folder, self.file_name), state, report)
                if table is not None:
                    return table
        for folder in folders:
            path = os.path.join(folder, self.file_name)
            with _locked(path, report.name) as is_locked:
                if is_locked:
                    # another process may have made it
                    table = None if rebuild else self._open(path, state, report)
                    return table or self._make(path, state, report, read)
        logger.warning(
            f"dataset {report.name}: no table of its annotations can be kept, as none of {', '.join(folders)} can be "
            "written. Every process reads them. DATASETS.TABLE_DIR names another folder; DATASETS.TABLE: never keeps "
            "this silent."
        )
        return read()

    @property
    def file_name(self) -> str:
        digest = hashlib.sha256(json.dumps(self.key, sort_keys=True).encode()).hexdigest()
        return f"{os.path.basename(self.place)}.{digest[:12]}.table"

    def _state(self) -> SourceState | None:
        """Return the state of the sources; None if no table is wanted, or if a file is missing (`read` reports it)."""
        if self.settings.mode == "never":
            return None
        try:
            state = SourceState(self.sources)
        except (OSError, ValueError):
            return None
        is_large = state.size >= LARGE or len(state.files) >= MANY
        return state if self.settings.mode == "always" or is_large else None

    def _folders(self) -> list[str]:
        if self.settings.folder:
            return [os.path.abspath(os.path.expanduser(self.settings.folder))]
        folder = self.place if os.path.isdir(self.place) else os.path.dirname(self.place)
        beside = os.path.join(folder, FOLDER)  # hidden from the readers of a folder
        caches = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        return [beside, os.path.join(caches, "maskrcnn_benchmark", "tables")]

    def _open(self, path: str, state: SourceState, report: DatasetReport) -> SampleTable | None:
        """Open the table of a file; None if it does not fit."""
        try:
            file = ArrayFile(path)
            trouble = self._trouble(file, state)
            if trouble is None:
                table = SampleTable.from_file(file)
                report.add_recorded(file.meta["report"])
                logger.info(f"dataset {report.name}: annotations from {path}")
                return table
        except FileNotFoundError:
            return None
        except (OSError, ArrayFileError, KeyError, TypeError, ValueError) as error:
            trouble = str(error)
        logger.info(f"dataset {report.name}: table {path} is not used, as {trouble}")
        return None

    def _trouble(self, file: ArrayFile, state: SourceState) -> str | None:
        """Return why a table does not fit; None if it does."""
        if file.meta["key"] != self.key:
            return "it is of other files or settings"
        if file.meta["version"] != reader_version():
            return "another version of this package wrote it"
        return state.difference(file.meta["sources"], file.arrays)

    def _make(self, path: str, state: SourceState, report: DatasetReport, read: Callable) -> SampleTable:
        start = time.perf_counter()
        table = read()
        sources = state.to_arrays()
        if not state.is_as_before():
            logger.warning(f"dataset {report.name}: files of {self.place} changed while being read")
            return table
        about, arrays = table.to_file()
        meta = {
            "key": self.key,
            "version": reader_version(),
            "sources": state.others,
            "report": report.to_record(),
            "table": about,
        }
        try:
            write_arrays(path, meta, {**arrays, **sources})
            mapped = SampleTable.from_file(ArrayFile(path, check=False))
        except OSError as error:
            logger.warning(
                f"dataset {report.name}: the table of its annotations is not kept, {path} cannot be written: {error}"
            )
            return table
        seconds, size = time.perf_counter() - start, os.path.getsize(path)
        logger.info(f"dataset {report.name}: read in {seconds:.1f} s; {path} ({size / 1e6:,.0f} MB) keeps it")
        return mapped


def rebuild_command(path: str) -> str:
    """Return the command that rebuilds a table."""
    return f"python tools/dataset_table.py --rebuild {shlex.quote(path)}"


@cache
def reader_version() -> str:
    """Return a digest of the code that determines the content of a table: after a change, old tables do not fit."""
    package = Path(__file__).resolve().parents[2]
    code = [*package.glob("data/datasets/*.py"), *package.glob("structures/*.py"), package / "utils" / "array_file.py"]
    digest = hashlib.sha256()
    for path in sorted(code):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


@contextlib.contextmanager
def _locked(path: str, name: str) -> Iterator[bool]:
    """Hold the lock of a table while it is made. The folder is created.

    Yields:
        True if the lock is held; False if the folder cannot be written or locked, or another process has held the lock
            for PATIENCE seconds.
    """
    handle = None
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        if os.access(os.path.dirname(path), os.W_OK):
            handle = _take_lock(f"{path}.lock", name)
    except OSError:  # no such place, a full quota, a file system without locks
        pass
    try:
        yield handle is not None
    finally:
        if handle is not None:
            with contextlib.suppress(OSError):
                os.remove(f"{path}.lock")
            os.close(handle)


def _take_lock(path: str, name: str) -> int | None:
    """Wait for the lock, and return its file descriptor; None after PATIENCE seconds.

    Raises:
        OSError: the file cannot be created or locked.
    """
    begun = time.monotonic()
    is_reported = False
    while time.monotonic() < begun + PATIENCE:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o666)
        try:
            if fcntl is None:
                return handle
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # its last owner removes the file: the lock of a removed file keeps nobody out
            with contextlib.suppress(FileNotFoundError):
                if os.stat(path).st_ino == os.fstat(handle).st_ino:
                    return handle
            os.close(handle)
            continue
        except BlockingIOError:
            os.close(handle)
        except OSError:
            os.close(handle)
            raise
        if not is_reported:
            logger.info(f"dataset {name}: another process reads the annotations; waiting for its table")
            is_reported = True
        time.sleep(LOOK)
    logger.warning(f"dataset {name}: {path} has been held for {PATIENCE:.0f} s; reading the annotations here too")
    return None
