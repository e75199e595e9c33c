"""Read frames of cameras, streams and video files, write them, and show them in a window.

Frames are (H, W, 3) uint8 BGR, as OpenCV has them.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from maskrcnn_benchmark.utils.text_file import did_you_mean

# Codecs by file name extension, those that OpenCV's own builds can write.
CODECS = {".mp4": "mp4v", ".m4v": "mp4v", ".mov": "mp4v", ".mkv": "mp4v", ".avi": "MJPG"}
# Of sources that don't give their rate.
FRAME_RATE = 25.0
# Rates beyond are mistakes of headers.
HIGHEST_RATE = 1000.0
# Seconds without a frame after which a camera or stream is given up.
TIMEOUT = 15.0
ESCAPE = 27


@dataclass(frozen=True)
class Frame:
    """A frame of a video.

    Attributes:
        pixels: (H, W, 3) uint8 BGR.
        number: from 0; of cameras and streams, the frames in between were dropped.
        seconds: since the first frame.
    """

    pixels: np.ndarray
    number: int
    seconds: float


def open_video(source: str | int, timeout: float = TIMEOUT) -> VideoFile | LiveVideo:
    """Open a camera (0, 1, ...), a stream's address (with "://"), or a video file.

    Raises:
        ValueError: there is no such file.
        OSError: OpenCV cannot open it.
    """
    import cv2

    text = str(source).strip()
    is_camera, is_stream = text.isdecimal(), "://" in text
    if not is_camera and not is_stream:
        text = os.path.expanduser(text)
        if not os.path.isfile(text):
            raise ValueError(
                f"{source}: no such video file.{did_you_mean(text)} A camera is given by its number (0, 1, ...), a "
                "stream by its address (rtsp://..., http://...)"
            )
    if is_camera:
        capture = cv2.VideoCapture(int(text))
    elif is_stream:
        limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, int(1000 * timeout), cv2.CAP_PROP_READ_TIMEOUT_MSEC]
        capture = cv2.VideoCapture(text, cv2.CAP_FFMPEG, [*limits, int(1000 * timeout)])
    else:
        capture = cv2.VideoCapture(text)
    if not capture.isOpened():
        capture.release()
        if is_camera:
            raise OSError(f"camera {text} cannot be opened: is it connected, and free? Other sources: a file, a stream")
        raise OSError(f"{source} cannot be opened as a video")
    rate = capture.get(cv2.CAP_PROP_FPS)
    rate = rate if 0 < rate <= HIGHEST_RATE else FRAME_RATE
    if is_camera or is_stream:
        return LiveVideo(capture, rate, f"camera {text}" if is_camera else text, timeout)
    return VideoFile(capture, rate, text)


class VideoFile:
    """Every frame of a video file, in order.

    Args:
        capture: cv2.VideoCapture, open.
        rate: frames per second.
        name: of messages.

    Iteration yields Frames.

    Raises:
        OSError: the file has no frame that can be decoded.
    """

    dropped = 0

    def __init__(self, capture, rate: float, name: str):
        self.capture, self.rate, self.name = capture, rate, name

    def __iter__(self) -> Iterator[Frame]:
        number = 0
        while True:
            read, pixels = self.capture.read()
            if not read:
                break
            yield Frame(pixels, number, number / self.rate)
            number += 1
        if not number:
            raise OSError(f"{self.name} has no frame that can be decoded")

    def close(self) -> None:
        self.capture.release()


class LiveVideo:
    """The newest frame of a camera or stream, each time one is asked for; those in between are dropped.

    A thread reads frames as they come, from the first time that one is asked for. So none waits in a queue, and what is
    shown is never late. It can be iterated once.

    Args:
        capture: cv2.VideoCapture, open.
        rate: frames per second that the source claims.
        name: of messages.
        timeout: seconds without a frame after which OSError is raised.

    Attributes:
        dropped: number of frames dropped so far.
    """

    def __init__(self, capture, rate: float, name: str, timeout: float = TIMEOUT):
        self.capture, self.rate, self.name, self.timeout = capture, rate, name, timeout
        self.dropped = 0
        self._newest: Frame | None = None
        self._ended = self._closed = False
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def _read(self) -> None:
        number, start = 0, None
        try:
            while not self._closed:
                read, pixels = self.capture.read()
                if not read:
                    return
                now = time.monotonic()
                start = now if start is None else start
                with self._changed:
                    self.dropped += self._newest is not None
                    self._newest = Frame(pixels, number, now - start)
                    self._changed.notify()
                number += 1
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify()
            self.capture.release()

    def __iter__(self) -> Iterator[Frame]:
        self._thread = threading.Thread(target=self._read, name="camera", daemon=True)
        self._thread.start()
        number = -1
        while True:
            with self._changed:
                if not self._changed.wait_for(lambda: self._newest is not None or self._ended, self.timeout):
                    raise OSError(f"{self.name} has sent no frame for {self.timeout:g} seconds")
                frame, self._newest = self._newest, None
            if frame is None:
                break
            number = frame.number
            yield frame
        if number < 0:
            raise OSError(f"{self.name} has sent no frame that can be decoded")

    def close(self) -> None:
        self._closed = True
        if self._thread is None:
            self.capture.release()
        else:
            self._thread.join(1.0)  # a camera that hangs keeps its thread, which ends with the process


class VideoWriter:
    """Write frames to a video file, which appears under its name when it is closed.

    Args:
        path: .mp4, .m4v, .mov, .mkv or .avi.
        rate: frames per second.

    The first frame decides the size; others are resized to it. Without a frame no file is written.

    Raises:
        ValueError: another extension.
        OSError: the folder cannot be written to, or OpenCV cannot encode.
    """

    def __init__(self, path: str | os.PathLike, rate: float):
        self.path, self.rate = os.path.expanduser(path), rate
        self._stem, self._extension = os.path.splitext(self.path)
        if self._extension.lower() not in CODECS:
            raise ValueError(f"{path}: videos are written as {', '.join(CODECS)}, got {self._extension!r}")
        folder = os.path.dirname(self.path) or "."
        os.makedirs(folder, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise OSError(f"{path}: the folder {folder} cannot be written to")
        self.frames = 0
        self._writer = None
        self._last: np.ndarray | None = None

    @property
    def _partial(self) -> str:
        return f"{self._stem}.partial{self._extension}"

    def write(self, pixels: np.ndarray, seconds: float | None = None) -> None:
        """Add a frame.

        Args:
            pixels: (H, W, 3) uint8 BGR.
            seconds: since the first frame, when this one is shown; the one before it is repeated until then, and the
                frame is left out where one is at that time already. None adds it behind the last one.
        """
        import cv2

        if self._writer is None:
            height, width = pixels.shape[:2]
            codec = cv2.VideoWriter_fourcc(*CODECS[self._extension.lower()])
            self._size = (width, height)
            self._writer = cv2.VideoWriter(self._partial, codec, self.rate, self._size)
            if not self._writer.isOpened():
                raise OSError(f"OpenCV cannot write {self._partial} ({width} x {height}, {self.rate:g} frames/s)")
        elif pixels.shape[1::-1] != self._size:
            pixels = cv2.resize(pixels, self._size, interpolation=cv2.INTER_AREA)
        due = self.frames if seconds is None else round(seconds * self.rate)
        while self._last is not None and self.frames < due:
            self._add(self._last)
        if self.frames <= due:
            self._add(pixels)
        if seconds is not None:
            self._last = pixels

    def _add(self, pixels: np.ndarray) -> None:
        self._writer.write(np.ascontiguousarray(pixels))
        self.frames += 1

    def close(self) -> None:
        """Finish the file."""
        if self._writer is None:
            return
        self._writer.release()
        self._writer = None
        if not os.path.exists(self._partial) or not os.path.getsize(self._partial):
            raise OSError(f"OpenCV has written nothing to {self._partial}")
        os.replace(self._partial, self.path)


class Window:
    """Show frames in a window; Escape, q or its close button ends the show.

    Raises:
        OSError: there is no display, or OpenCV is built without windows.
    """

    def __init__(self, title: str):
        import cv2

        self.title = title
        if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
            raise OSError(
                "there is no display to open a window on (DISPLAY is not set): give --no-window, and --output FILE.mp4"
            )
        try:
            cv2.namedWindow(title, cv2.WINDOW_AUTOSIZE | cv2.WINDOW_GUI_NORMAL)
        except cv2.error as error:
            raise OSError(f"OpenCV cannot open a window ({error.err or error}): give --no-window") from error

    def show(self, pixels: np.ndarray) -> bool:
        """Show a frame; return whether to go on."""
        import cv2

        cv2.imshow(self.title, pixels)
        key = cv2.waitKey(1) & 0xFF
        return key not in (ESCAPE, ord("q")) and cv2.getWindowProperty(self.title, cv2.WND_PROP_VISIBLE) >= 1

    def close(self) -> None:
        import cv2

        cv2.destroyWindow(self.title)
