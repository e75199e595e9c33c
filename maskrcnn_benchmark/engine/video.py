"""Read frames from cameras, streams and video files, write videos, and show frames in a window.

Frames are (H, W, 3) uint8 BGR, as in OpenCV.
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

# Codecs by extension that the OpenCV packages on PyPI can write.
CODECS = {".mp4": "mp4v", ".m4v": "mp4v", ".mov": "mp4v", ".mkv": "mp4v", ".avi": "MJPG"}
# Frames per second of sources that do not report their rate.
FRAME_RATE = 25.0
# Higher rates in headers are wrong.
HIGHEST_RATE = 1000.0
# Seconds without a frame after which reading a camera or stream fails.
TIMEOUT = 15.0
ESCAPE = 27


@dataclass(frozen=True)
class Frame:
    """A frame of a video.

    Attributes:
        pixels: (H, W, 3) uint8 BGR.
        number: frame number from 0. Gaps in the numbers of a camera or stream are dropped frames.
        seconds: time since the first frame.
    """

    pixels: np.ndarray
    number: int
    seconds: float


def open_video(source: str | int, timeout: float = TIMEOUT) -> VideoFile | LiveVideo:
    """Open a camera (0, 1, ...), a stream (an address with "://") or a video file.

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
                f"{source}: no such video file.{did_you_mean(text)} Use a number (0, 1, ...) for a camera, or an "
                "address (rtsp://..., http://...) for a stream"
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
            raise OSError(
                f"camera {text} cannot be opened: check that it is connected and not in use, or use a file or a stream"
            )
        raise OSError(f"{source} cannot be opened as a video")
    rate = capture.get(cv2.CAP_PROP_FPS)
    rate = rate if 0 < rate <= HIGHEST_RATE else FRAME_RATE
    if is_camera or is_stream:
        return LiveVideo(capture, rate, f"camera {text}" if is_camera else text, timeout)
    return VideoFile(capture, rate, text)


class VideoFile:
    """Video file; iteration yields every Frame in order.

    Args:
        capture: open cv2.VideoCapture.
        rate: frames per second.
        name: name for error messages.

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
    """Camera or stream; iteration yields the newest Frame and drops those in between.

    A thread reads frames as they arrive, so frames never queue up and the display does not lag. The thread starts with
    the iteration. The object can be iterated once.

    Args:
        capture: open cv2.VideoCapture.
        rate: frames per second that the source reports.
        name: name for error messages.
        timeout: seconds without a frame after which OSError is raised.

    Attributes:
        dropped: number of frames dropped so far.

    Raises:
        OSError: no frame arrives within `timeout`, or the source ends without a frame.
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
            self._thread.join(1.0)  # the thread of a camera that hangs ends with the process


class VideoWriter:
    """Writer of a video file. The file appears at `path` when the writer is closed.

    The first frame sets the size of the video; other frames are resized to it. Without frames no file is written.

    Args:
        path: file with the extension .mp4, .m4v, .mov, .mkv or .avi.
        rate: frames per second.

    Raises:
        ValueError: unsupported extension.
        OSError: the folder is not writable, or OpenCV cannot encode.
    """

    def __init__(self, path: str | os.PathLike, rate: float):
        self.path, self.rate = os.path.expanduser(path), rate
        self._stem, self._extension = os.path.splitext(self.path)
        if self._extension.lower() not in CODECS:
            raise ValueError(f"{path}: the extension must be one of {', '.join(CODECS)}, got {self._extension!r}")
        folder = os.path.dirname(self.path) or "."
        os.makedirs(folder, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise OSError(f"{path}: the folder {folder} is not writable")
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
            seconds: time of the frame since the first one. The previous frame is repeated until then. If the video is
                already longer, the frame is dropped. None appends the frame directly.
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
        """Finish the file and move it to `path`.

        Raises:
            OSError: OpenCV has written nothing.
        """
        if self._writer is None:
            return
        self._writer.release()
        self._writer = None
        if not os.path.exists(self._partial) or not os.path.getsize(self._partial):
            raise OSError(f"OpenCV has written nothing to {self._partial}")
        os.replace(self._partial, self.path)


class Window:
    """Window that shows frames until Escape, q or its close button.

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
        """Show a frame; return False if the user has closed the window."""
        import cv2

        cv2.imshow(self.title, pixels)
        key = cv2.waitKey(1) & 0xFF
        return key not in (ESCAPE, ord("q")) and cv2.getWindowProperty(self.title, cv2.WND_PROP_VISIBLE) >= 1

    def close(self) -> None:
        import cv2

        cv2.destroyWindow(self.title)
