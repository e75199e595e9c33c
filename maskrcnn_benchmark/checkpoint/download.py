"""Download weights once, into the forks' cache folder."""

from __future__ import annotations

import hashlib
import http.client
import os
import re
import ssl
import sys
import time
from collections.abc import Sequence
from urllib.error import HTTPError, URLError
from urllib.parse import urlparse
from urllib.request import Request, urlopen

import torch.distributed as dist

from maskrcnn_benchmark.utils.atomic_write import atomic_write

from .safe_unpickle import what_it_seems_to_be

_HASH = re.compile(r"-([0-9a-f]{6,64})\.")
_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+)")
_BLOCK = 1 << 20
# Seconds without a byte after which a connection counts as broken.
TIMEOUT = 60
# How often a broken transfer is continued, and the seconds before the first of these attempts.
CONTINUED = 3
PAUSE = 1.0
# What a broken connection raises.
_BROKEN = (ConnectionError, TimeoutError, ssl.SSLError, http.client.HTTPException)


def cache_folder() -> str:
    """Return $TORCH_MODEL_ZOO, else $TORCH_HOME/models, else ~/.torch/models."""
    torch_home = os.path.expanduser(os.environ.get("TORCH_HOME", "~/.torch"))
    return os.path.expanduser(os.environ.get("TORCH_MODEL_ZOO", os.path.join(torch_home, "models")))


def file_name(url: str) -> str:
    """Return the file name for a URL: its #fragment if it has one, else the last part of its path without the query."""
    parts = urlparse(url)
    name = os.path.basename(parts.fragment or parts.path)
    if name == "model_final.pkl":  # name of all Detectron files; their folders differ
        name = parts.path.replace("/", "_")
    if not name or name in (".", ".."):
        raise ValueError(f"the URL {url} names no file; add one as a fragment: {url}#NAME.pth")
    return name


def cache_url(url: str, model_dir: str | None = None, progress: bool = True) -> str:
    """Download a file unless it is cached, and return its path.

    In a distributed run one process per machine downloads and all processes wait for it, so all must call this.

    Args:
        url: address of the file.
        model_dir: cache folder; default: `cache_folder()`.
        progress: print percentages to stderr if it is a terminal.

    Raises:
        ConnectionError: the download failed; the message says where to put the file by hand.
        ValueError: the file does not have the hash in its name, or is a web page.
    """
    return download([url], file_name(url), model_dir=model_dir, progress=progress)


def download(
    addresses: Sequence[str],
    name: str,
    size: int | None = None,
    sha256: str = "",
    model_dir: str | None = None,
    progress: bool = True,
) -> str:
    """Download a file from the first address that has it unless it is cached, and return its path.

    A cached file is not verified. A new file gets its name when it is complete and verified. An interrupted transfer
    continues where it stopped if the host supports that, otherwise from the start.

    Args:
        addresses: URLs, tried in order.
        name: file name in the cache folder.
        size, sha256: bytes and hash of the file, verified if known; a hash in the name is also verified.
        model_dir, progress: see `cache_url`, also for distributed runs.

    Raises:
        ConnectionError, ValueError: see `cache_url`.
    """
    folder = model_dir or cache_folder()
    path = os.path.join(folder, name)
    distributed = dist.is_available() and dist.is_initialized()
    downloads = not distributed or int(os.environ.get("LOCAL_RANK", dist.get_rank())) == 0
    try:
        if downloads and not os.path.exists(path):
            os.makedirs(folder, exist_ok=True)
            _download_first(addresses, path, size, sha256, progress and sys.stderr.isatty())
    finally:
        if distributed:  # also after an error, so that no process waits forever
            dist.barrier()
    if not os.path.exists(path):
        raise ConnectionError(f"the process of this machine that downloads {path} failed; see its log")
    return path


def _download_first(addresses: Sequence[str], path: str, size: int | None, sha256: str, progress: bool) -> None:
    failures: list[tuple[str, Exception]] = []
    for url in addresses:
        sys.stderr.write(f'Downloading: "{url}" to {path}\n')
        try:
            with atomic_write(path) as file:
                transfer = _Transfer(url, file, progress)
                transfer.run()
                transfer.check(os.path.basename(path), size, sha256)
            return
        except (URLError, *_BROKEN, ValueError) as error:
            failures.append((url, error))
    kind = ConnectionError if not any(isinstance(error, ValueError) for _, error in failures) else ValueError
    name, folder = os.path.basename(path), os.path.dirname(path)
    reasons = "".join(f"\n  {url}: {error}" for url, error in failures)
    raise kind(
        f"could not download {name}; nothing was kept.{reasons}\nIf the address has vanished, look elsewhere for a "
        f"file of this name. Any local copy works: give its path as MODEL.WEIGHT, or name it {name} and put it into "
        f"the folder {folder}."
    ) from failures[-1][1]


class _Transfer:
    """A download that continues after interruptions.

    Args:
        url: address of the file.
        file: empty file, open for writing.
        progress: print percentages to stderr.
    """

    def __init__(self, url: str, file, progress: bool):
        self.url, self.file, self.progress = url, file, progress
        self.validator = ""  # identifies the version of the file for the host
        self._restart(0)

    def _restart(self, size: int) -> None:
        self.file.seek(0)
        self.file.truncate()
        self.size, self.done, self.head, self.digest = size, 0, b"", hashlib.sha256()

    def run(self) -> None:
        """Receive the whole file.

        Raises:
            URLError, ConnectionError, TimeoutError, HTTPException: the host does not have the file, or the connection
                breaks repeatedly.
        """
        for attempt in range(1 + CONTINUED):
            try:
                with self._open() as response:
                    self._receive(response)
                closed, reason = True, "the host closed it"
            except _BROKEN as error:
                closed, reason = False, str(error) or type(error).__name__
            except URLError as error:  # a failure before the first byte is not retried
                if isinstance(error, HTTPError) or not self.done:
                    raise
                closed, reason = False, str(error.reason)
            if self.done == self.size if self.size else closed:  # without a size, the end of the data is the only sign
                return
            if attempt < CONTINUED:
                time.sleep(PAUSE * 2**attempt)
        raise ConnectionError(f"the connection broke after {self.done} of {self.size or 'unknown'} bytes ({reason})")

    def _open(self):
        headers = {"User-Agent": "maskrcnn-benchmark"}
        if self.done and self.validator:
            headers |= {"Range": f"bytes={self.done}-", "If-Range": self.validator}
        response = urlopen(Request(_direct(self.url), headers=headers), timeout=TIMEOUT)
        part = _RANGE.fullmatch(response.headers.get("Content-Range") or "")
        if response.status == 206 and part and int(part[1]) == self.done:
            self.size = int(part[2])
        else:
            self._restart(int(response.headers.get("Content-Length") or 0))
            tag = response.headers.get("ETag") or ""
            self.validator = tag if tag.startswith('"') else response.headers.get("Last-Modified") or ""
        return response

    def _receive(self, response) -> None:
        while block := response.read1(_BLOCK):  # received bytes are kept if the rest times out
            self.file.write(block)
            self.digest.update(block)
            self.head += block[: 512 - len(self.head)]
            self.done += len(block)
            if self.progress and self.size:
                sys.stderr.write(f"\r{100 * self.done // self.size:3d} % of {self.size / 1e6:.1f} MB")
        if self.progress and self.size:
            sys.stderr.write("\n")

    def check(self, name: str, size: int | None, sha256: str) -> None:
        """Compare the file with its known size and hashes.

        Raises:
            ValueError: the file is not a checkpoint, is damaged, or is another file.
        """
        seems = what_it_seems_to_be(self.head, self.done)
        if seems:
            raise ValueError(f"not a checkpoint but {seems}")
        if size is not None and self.done != size:
            raise ValueError(f"a file of {self.done} bytes, expected {size}: it is damaged or another file")
        in_name = _HASH.search(name)
        wanted = sha256 or (in_name[1] if in_name else "")
        if not self.digest.hexdigest().startswith(wanted):
            whose = "expected" if sha256 else "but its name says"
            raise ValueError(
                f"a file with sha256 {self.digest.hexdigest()}, {whose} {wanted}: it is damaged or another file"
            )


def _direct(url: str) -> str:
    """Return the direct address of a file if `url` is its page on Dropbox, else `url`."""
    parts = urlparse(url)
    if parts.hostname == "www.dropbox.com" and "dl=" not in parts.query:
        return parts._replace(query="&".join(filter(None, (parts.query, "dl=1")))).geturl()
    return url
