import threading
import time

import numpy as np
import pytest

from maskrcnn_benchmark.engine.video import LiveVideo, VideoWriter, Window, open_video


def shade(value, size=(48, 64)):
    return np.full((*size, 3), value, np.uint8)


def wait_until(happened):
    end = time.monotonic() + 5
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.001)


def write_video(path, values, rate=10.0):
    writer = VideoWriter(path, rate)
    for value in values:
        writer.write(shade(value))
    writer.close()
    return path


def shades(path):
    video = open_video(path)
    found = [int(frame.pixels.mean().round()) for frame in video]
    video.close()
    return found


class Camera:
    """Camera of `count` frames, whose shade is their number. Each frame waits for a release of `allowed`."""

    def __init__(self, count, allowed):
        self.count, self.given, self.released = count, 0, False
        self.allowed = threading.Semaphore(allowed)

    def read(self):
        if self.given >= self.count:
            return False, None
        assert self.allowed.acquire(timeout=5)
        self.given += 1
        return True, shade(self.given)

    def release(self):
        self.released = True


@pytest.mark.parametrize("name", ["a.mp4", "a.avi", "a.mkv", "a.MOV"])
def test_files_are_written_and_read_whole(tmp_path, name):
    values = [20, 60, 100, 140, 180]
    path = write_video(tmp_path / "new" / name, values)
    assert np.abs(np.subtract(shades(path), values)).max() <= 4
    video = open_video(path)
    frames = list(video)
    assert video.rate == 10 and video.dropped == 0
    assert [frame.number for frame in frames] == [0, 1, 2, 3, 4] and frames[4].seconds == pytest.approx(0.4)
    assert frames[0].pixels.shape == (48, 64, 3)
    assert [each.name for each in path.parent.iterdir()] == [name]


def test_fast_camera_drops_frames_and_yields_the_newest():
    camera = Camera(count=40, allowed=1)
    video = LiveVideo(camera, 30, "camera 0")
    frames = iter(video)
    seen = [next(frames)]
    for sent in (9, 29, 40):  # number of frames sent while the caller is busy
        camera.allowed.release(sent - camera.given)
        wait_until(lambda: camera.given == sent and video.dropped == sent - len(seen) - 1)  # noqa: B023
        seen.append(next(frames))
    assert [frame.number for frame in seen] == [0, 8, 28, 39] and video.dropped == 36
    assert [int(frame.pixels[0, 0, 0]) for frame in seen] == [1, 9, 29, 40]
    assert [frame.seconds for frame in seen] == sorted(frame.seconds for frame in seen)
    assert list(frames) == []
    video.close()
    assert camera.released


def test_slow_camera_neither_drops_nor_repeats_frames():
    camera = Camera(count=5, allowed=1)
    video = LiveVideo(camera, 30, "camera 0")
    numbers = []
    for frame in video:
        numbers.append(frame.number)
        camera.allowed.release()
    assert numbers == [0, 1, 2, 3, 4] and video.dropped == 0


def test_a_camera_that_hangs_or_sends_nothing_is_an_error():
    never = threading.Event()

    class Hanging(Camera):
        def read(self):
            never.wait(5)
            return False, None

    video = LiveVideo(Hanging(0, 0), 30, "camera 3", timeout=0.05)
    with pytest.raises(OSError, match="camera 3 has sent no frame for 0.05 seconds"):
        next(iter(video))
    never.set()
    with pytest.raises(OSError, match="rtsp://x has sent no frame that can be decoded"):
        list(LiveVideo(Camera(0, 0), 30, "rtsp://x"))


def test_frames_are_repeated_and_dropped_to_keep_real_time(tmp_path):
    writer = VideoWriter(tmp_path / "a.avi", 10.0)
    for value, seconds in ((20, 0.0), (60, 0.3), (100, 0.31), (140, 0.52)):
        writer.write(shade(value), seconds)
    writer.close()
    assert writer.frames == 6
    assert np.abs(np.subtract(shades(tmp_path / "a.avi"), [20, 20, 20, 60, 100, 140])).max() <= 4


def test_frames_of_other_sizes_are_resized(tmp_path):
    writer = VideoWriter(tmp_path / "a.mp4", 10.0)
    for size in ((47, 61), (90, 30)):
        writer.write(shade(90, size))
    writer.close()
    video = open_video(tmp_path / "a.mp4")
    assert [frame.pixels.shape[:2] for frame in video] in ([(47, 61)] * 2, [(46, 60)] * 2)


def test_writer_without_frames_writes_no_file(tmp_path):
    (tmp_path / "a.mp4").write_text("old")
    VideoWriter(tmp_path / "a.mp4", 10.0).close()
    assert (tmp_path / "a.mp4").read_text() == "old" and len(list(tmp_path.iterdir())) == 1


def test_error_messages_contain_the_source(tmp_path):
    write_video(tmp_path / "film.avi", [1])
    with pytest.raises(ValueError, match=r"flim\.avi: no such video file.*film\.avi.*Use a number .* for a camera"):
        open_video(tmp_path / "flim.avi")
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(OSError, match=r"text\.mp4 cannot be opened as a video"):
        open_video(tmp_path / "text.mp4")
    with pytest.raises(OSError, match="camera 97 cannot be opened"):
        open_video(97)
    with pytest.raises(ValueError, match=r"\.mp4.*got '\.gif'"):
        VideoWriter(tmp_path / "a.gif", 10)


def test_window_without_a_display_is_an_error(monkeypatch):
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with pytest.raises(OSError, match="no display.*--no-window"):
        Window("COCO detections")
