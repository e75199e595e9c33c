"""Downloading weights once, into the forks' cache folders."""

from __future__ import annotations

import hashlib
import http.client
import os
import re
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


def cache_folder() -> str:
    """Return $TORCH_MODEL_ZOO, else $TORCH_HOME/models, else ~/.torch/models."""
    torch_home = os.path.expanduser(os.environ.get("TORCH_HOME", "~/.torch"))
    return os.path.expanduser(os.environ.get("TORCH_MODEL_ZOO", os.path.join(torch_home, "models")))


def file_name(url: str) -> str:
    """The name a URL is kept under: its #fragment if it has one, else the last part of its path, without the query."""
    parts = urlparse(url)
    name = os.path.basename(parts.fragment or parts.path)
    if name == "model_final.pkl":  # all of Detectron's files are called so; the folders tell them apart
        name = parts.path.replace("/", "_")
    if not name or name in (".", ".."):
        raise ValueError(f"the URL {url} names no file; add one as a fragment: {url}#NAME.pth")
    return name


def cache_url(url: str, model_dir: str | None = None, progress: bool = True) -> str:
    """Return the path of the file that `url` names, downloaded if it is not in the cache folder yet.

    In a distributed run one process of each machine downloads, and all wait for it: call it on all of them.

    Args:
        model_dir: default `cache_folder()`.
        progress: percentages on stderr, when that is a terminal.

    Raises:
        ConnectionError: it could not be downloaded; the message says where to put the file by hand.
        ValueError: the file has another hash than its name says, or is a web page.
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
    """Return the path of the file `name` in the cache folder, downloaded from the first address that has it.

    A file that is there is returned as it is. A new one is moved to its name when it is complete and verified. A
    transfer that breaks continues where it was if the host supports that, otherwise from its start.

    Args:
        size, sha256: of the file, verified where they are known; a hash in the name is verified, too.
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
        if distributed:  # also after an error, so that nobody waits for a process that has gone
            dist.barrier()
    if not os.path.exists(path):
        raise ConnectionError(f"the process of this machine that downloads {path} failed; its log says why")
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
        except (URLError, ConnectionError, TimeoutError, http.client.HTTPException, ValueError) as error:
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
    """A download that continues where its connection broke.

    Args:
        file: open for writing, and empty.
        progress: print percentages to stderr.
    """

    def __init__(self, url: str, file, progress: bool):
        self.url, self.file, self.progress = url, file, progress
        self.validator = ""  # tells the host which version of the file the first part is from
        self._restart(0)

    def _restart(self, size: int) -> None:
        self.file.seek(0)
        self.file.truncate()
        self.size, self.done, self.head, self.digest = size, 0, b"", hashlib.sha256()

    def run(self) -> None:
        """Receive the whole file.

        Raises:
            URLError, ConnectionError, TimeoutError, HTTPException: the host does not have it, or the connection breaks
                again and again.
        """
        for attempt in range(1 + CONTINUED):
            try:
                with self._open() as response:
                    self._receive(response)
                reason = "the host closed it"
            except (ConnectionError, TimeoutError, http.client.HTTPException) as error:
                reason = str(error) or type(error).__name__
            except URLError as error:  # before the first byte it is as good as vanished
                if isinstance(error, HTTPError) or not self.done:
                    raise
                reason = str(error.reason)
            if self.size and self.done == self.size or not self.size and reason == "the host closed it":
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
        while block := response.read1(_BLOCK):  # what has come is kept if the rest times out
            self.file.write(block)
            self.digest.update(block)
            self.head += block[: 512 - len(self.head)]
            self.done += len(block)
            if self.progress and self.size:
                sys.stderr.write(f"\r{100 * self.done // self.size:3d} % of {self.size / 1e6:.1f} MB")
        if self.progress and self.size:
            sys.stderr.write("\n")

    def check(self, name: str, size: int | None, sha256: str) -> None:
        """Compare the file with all that is known of it.

        Raises:
            ValueError: it is no checkpoint, damaged, or another file.
        """
        seems = what_it_seems_to_be(self.head, self.done)
        if seems:
            raise ValueError(f"no checkpoint but {seems}")
        if size is not None and self.done != size:
            raise ValueError(f"a file of {self.done} bytes, wanted {size}: it is damaged or another file")
        in_name = _HASH.search(name)
        wanted = sha256 or (in_name[1] if in_name else "")
        if not self.digest.hexdigest().startswith(wanted):
            whose = "wanted" if sha256 else "and its name says"
            raise ValueError(
                f"a file with sha256 {self.digest.hexdigest()}, {whose} {wanted}: it is damaged or another file"
            )


def _direct(url: str) -> str:
    """Return the address of the file where `url` is that of Dropbox's page about it."""
    parts = urlparse(url)
    if parts.hostname == "www.dropbox.com" and "dl=" not in parts.query:
        return parts._replace(query="&".join(filter(None, (parts.query, "dl=1")))).geturl()
    return url
