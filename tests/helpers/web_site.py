"""Local web server whose connections fail in several ways."""

from __future__ import annotations

import contextlib
import functools
import http.server
import threading
from pathlib import Path


class Handler(http.server.SimpleHTTPRequestHandler):
    """Handler that serves the files of a folder. The first part of the path selects the failure:

    - broken: sends fewer bytes than announced.
    - half: closes in the middle of the first response, and supports ranges.
    - restart: closes in the middle of the first response, and does not support ranges.
    - changed: like half, but the file changes after the first response.
    - silent: stops in the middle of the first response without closing.
    - stuck: never sends a byte.
    """

    def log_message(self, *args):
        pass

    def do_GET(self):
        self.server.requests.append((self.path, self.headers.get("Range")))
        _, way, *rest = self.path.split("/")
        if way == "broken":
            self.start(200, {"Content-Length": "1000000"})
            self.wfile.write(b"PK\x03\x04")
        elif way == "stuck":
            self.server.released.wait()
        elif way in ("half", "restart", "changed", "silent"):
            self.in_parts(way, (Path(self.directory) / "/".join(rest)).read_bytes())
        else:
            super().do_GET()

    def start(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def in_parts(self, way: str, content: bytes) -> None:
        first = len([path for path, _ in self.server.requests if path == self.path]) == 1
        tag = '"1"' if first or way != "changed" else '"2"'
        if way == "changed" and not first:
            content = content + content
        begin = 0
        if way != "restart" and self.headers.get("Range") and self.headers.get("If-Range") == tag:
            begin = int(self.headers["Range"].removeprefix("bytes=").rstrip("-"))
        rest = content[begin:]
        headers = {"Content-Length": str(len(rest)), "ETag": tag}
        if begin:
            headers["Content-Range"] = f"bytes {begin}-{len(content) - 1}/{len(content)}"
        self.start(206 if begin else 200, headers)
        self.wfile.write(rest[: len(rest) // 2] if first else rest)
        self.wfile.flush()
        if first and way == "silent":
            self.server.released.wait()


class WebSite:
    """A running server.

    Attributes:
        folder: folder of the files.
        address: URL of the folder.
        requests: (path, Range) of each request so far.
    """

    def __init__(self, folder: Path, server: http.server.ThreadingHTTPServer):
        self.folder, self.requests = folder, server.requests
        self.address = f"http://127.0.0.1:{server.server_address[1]}"


@contextlib.contextmanager
def serve(folder: Path):
    """Run a server inside the block; yield a WebSite."""
    folder.mkdir(parents=True, exist_ok=True)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=folder))
    server.requests, server.released = [], threading.Event()
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield WebSite(folder, server)
    finally:
        server.released.set()
        server.shutdown()
        server.server_close()
