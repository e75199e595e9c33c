"""Downloading weights once, into the forks' cache folders."""

from __future__ import annotations

import hashlib
import http.client
import os
import re
import sys
from urllib.error import URLError
from urllib.parse import urlparse
from urllib.request import Request, urlopen

import torch.distributed as dist

from maskrcnn_benchmark.utils.atomic_write import atomic_write

from .safe_unpickle import what_it_seems_to_be

_HASH = re.compile(r"-([0-9a-f]{6,64})\.")
_BLOCK = 1 << 20


def _cache_folder() -> str:
    torch_home = os.path.expanduser(os.environ.get("TORCH_HOME", "~/.torch"))
    return os.path.expanduser(os.environ.get("TORCH_MODEL_ZOO", os.path.join(torch_home, "models")))


def _file_name(url: str) -> str:
    """The name a URL is kept under: its #fragment if it has one, else the last part of its path, without the query."""
    parts = urlparse(url)
    name = os.path.basename(parts.fragment or parts.path)
    if name == "model_final.pkl":  # all of Detectron's files are called so; the folders tell them apart
        name = parts.path.replace("/", "_")
    if not name or name in (".", ".."):
        raise ValueError(f"the URL {url} names no file; add one as a fragment: {url}#NAME.pth")
    return name


def cache_url(url: str, model_dir: str | None = None, progress: bool = True) -> str:
    """Path of the file that `url` names, downloaded if it is not in the cache folder yet.

    In a distributed run one process of each machine downloads, and all wait for it: call it on all of them.

    Args:
        model_dir: default $TORCH_MODEL_ZOO, else $TORCH_HOME/models, else ~/.torch/models.
        progress: percentages on stderr, when that is a terminal.

    Raises:
        ConnectionError: it could not be downloaded; the message says where to put the file by hand.
        ValueError: what came is not what the name's hash says, or a web page.
    """
    folder = model_dir or _cache_folder()
    path = os.path.join(folder, _file_name(url))
    distributed = dist.is_available() and dist.is_initialized()
    downloads = not distributed or int(os.environ.get("LOCAL_RANK", dist.get_rank())) == 0
    try:
        if downloads and not os.path.exists(path):
            sys.stderr.write(f'Downloading: "{url}" to {path}\n')
            os.makedirs(folder, exist_ok=True)
            _download(url, path, progress and sys.stderr.isatty())
    finally:
        if distributed:  # also after an error, so that nobody waits for a process that has gone
            dist.barrier()
    if not os.path.exists(path):
        raise ConnectionError(f"the process of this machine that downloads {url} to {path} failed; its log says why")
    return path


def _download(url: str, path: str, progress: bool) -> None:
    expected = _HASH.search(os.path.basename(path))
    digest = hashlib.sha256()
    try:
        with atomic_write(path) as file:
            with urlopen(Request(url, headers={"User-Agent": "maskrcnn-benchmark"}), timeout=60) as response:
                size, done, head = int(response.headers.get("Content-Length") or 0), 0, b""
                while block := response.read(_BLOCK):
                    file.write(block)
                    digest.update(block)
                    head = head or block[:512]
                    done += len(block)
                    if progress and size:
                        sys.stderr.write(f"\r{100 * done // size:3d} % of {size / 1e6:.1f} MB")
                if progress and size:
                    sys.stderr.write("\n")
            if size and done != size:
                raise ConnectionError(f"the connection broke after {done} of {size} bytes")
            seems = what_it_seems_to_be(head, done)
            if seems:
                raise ValueError(f"{url} gave no checkpoint but {seems}")
            if expected and not digest.hexdigest().startswith(expected[1]):
                raise ValueError(
                    f"{url} gave a file with sha256 {digest.hexdigest()}, and its name says {expected[1]}...: it is "
                    "damaged or is another file. Nothing was kept."
                )
    except (URLError, ConnectionError, TimeoutError, http.client.HTTPException) as error:
        raise ConnectionError(
            f"could not download {url} ({error}). Without a network, get the file elsewhere, "
            f"name it {os.path.basename(path)} and put it into the folder {os.path.dirname(path)}; or give its path "
            "as MODEL.WEIGHT."
        ) from error
