"""demo/webcam.py in this process, in a subprocess without a display, and under Xvfb."""

import functools
import http.server
import os
import shutil
import subprocess
import sys
import threading
import time

import cv2
import numpy as np
import pytest
import torch
from conftest import ROOT
from helpers.tiny_models import tiny_cfg, tiny_model

from maskrcnn_benchmark.checkpoint.checkpointer import write_checkpoint
from maskrcnn_benchmark.data.sample import sample_image, sample_objects
from maskrcnn_benchmark.engine.video import Frame, VideoWriter, open_video
from maskrcnn_benchmark.structures.bounding_box import BoxList
from maskrcnn_benchmark.visual.palette import label_colors

SIZE = 160, 120
FRAMES = 30
# Objects of the test video: BGR colour, label, first corner, pixels per frame, side. The first two cross.
SQUARES = (
    ((0, 0, 250), 1, (0, 20), (4, 0), 24),
    ((250, 0, 0), 2, (130, 24), (-4, 0), 24),
    ((0, 250, 0), 1, (60, 80), (1, 0), 20),
)


def film(path, frames=FRAMES, rate=10.0):
    writer = VideoWriter(path, rate)
    for t in range(frames):
        pixels = np.full((SIZE[1], SIZE[0], 3), 90, np.uint8)
        for color, _, corner, velocity, side in reversed(SQUARES):
            x, y = np.add(corner, np.multiply(velocity, t))
            pixels[y : y + side, max(x, 0) : x + side] = color
        writer.write(pixels)
    writer.close()
    return str(path)


def find_squares(pixels):
    """Detect the squares by colour, as a replacement for a model."""
    boxes, labels = [], []
    for color, label, *_ in SQUARES:
        close = (np.abs(pixels.astype(int) - color) < 90).all(axis=2)
        ys, xs = np.nonzero(close)
        if len(xs) > 60:
            boxes.append([xs.min(), ys.min(), xs.max(), ys.max()])
            labels.append(label)
    found = BoxList(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4), SIZE)
    found.add_field("labels", torch.tensor(labels, dtype=torch.int64))
    found.add_field("scores", torch.full((len(boxes),), 0.9))
    return found


@pytest.fixture
def weights(tmp_path):
    torch.manual_seed(0)
    cfg = tiny_cfg("mask", "INPUT.MIN_SIZE_TEST", 64, "INPUT.MAX_SIZE_TEST", 96)
    entries = {"model": tiny_model(cfg).state_dict(), "config": cfg.dump(), "class_names": ["red", "blue"]}
    write_checkpoint(tmp_path / "model_final.pth", entries)
    return str(tmp_path / "model_final.pth")


@pytest.fixture
def webcam(demo_module, monkeypatch):
    """Function webcam(*args): run webcam.py's main; its attribute `module` is the module."""
    module = demo_module("webcam")

    def run(*args):
        monkeypatch.setattr(sys, "argv", ["webcam.py", *map(str, args)])
        module.main()

    run.module = module
    return run


def frames_of(path):
    video = open_video(path)
    found = [frame.pixels for frame in video]
    rate = video.rate
    video.close()
    return found, rate


def test_every_frame_of_a_file_is_drawn_and_written(webcam, weights, tmp_path, capsys):
    source, output = film(tmp_path / "film.avi", 6), tmp_path / "found.avi"
    webcam("--source", source, "--no-window", "--output", output, "--weights", weights, "--confidence-threshold", 0.2)
    found, rate = frames_of(output)
    plain, _ = frames_of(source)
    assert len(found) == 6 and rate == 10 and found[0].shape == plain[0].shape
    assert all(np.abs(one.astype(int) - other).max() > 60 for one, other in zip(found, plain, strict=True))
    printed = capsys.readouterr().out
    assert printed.count(" s / img") == 6 and "6 frames in" in printed and "0 dropped" in printed
    assert str(output) in printed
    assert "tensors were found in the file" in printed and " DEBUG: " not in printed


def test_track_numbers_and_boxes_are_drawn(webcam, weights, tmp_path, monkeypatch, capsys):
    source, output = film(tmp_path / "film.avi"), tmp_path / "found.avi"
    ids = []

    def compute(self, pixels):
        return find_squares(pixels)

    def tags(self, pixels, predictions):
        ids.append(
            dict(
                zip(predictions.get_field("labels").tolist(), predictions.get_field("track_ids").tolist(), strict=True)
            )
        )
        return original(self, pixels, predictions)

    demo = webcam.module.COCODemo
    original = demo.overlay_class_names
    monkeypatch.setattr(demo, "compute_prediction", compute)
    monkeypatch.setattr(demo, "overlay_class_names", tags)
    webcam("--source", source, "--no-window", "--output", output, "--weights", weights, "--track")
    assert len(ids) == FRAMES and {frame[2] for frame in ids} == {2}, "blue keeps its number behind red"
    assert "3 objects were tracked" in capsys.readouterr().out
    found, _ = frames_of(output)
    last = found[-1]
    x, y = 60 + FRAMES - 1, 80
    frame_color = last[y + 2 : y + 18, x - 1 : x + 1].mean(axis=(0, 1))
    assert np.abs(frame_color - label_colors([1])[0][::-1]).max() < 70, "the green square has the frame of label 1"


def test_written_video_of_a_fast_stream_keeps_real_time(webcam, weights, tmp_path, monkeypatch):
    class Stream:
        rate, dropped, name = 10.0, 7, "stream"

        def __iter__(self):
            for number, seconds in ((0, 0.0), (4, 0.4), (9, 0.9)):
                yield Frame(np.full((60, 80, 3), 40 * number % 256, np.uint8), number, seconds)

        def close(self):
            pass

    monkeypatch.setattr(webcam.module, "open_video", lambda source: Stream())
    webcam("--source", "rtsp://camera", "--no-window", "--output", tmp_path / "found.avi", "--weights", weights)
    found, _ = frames_of(tmp_path / "found.avi")
    assert len(found) == 10


@pytest.mark.parametrize("key, closed, shown", [(27, False, 1), (ord("q"), False, 1), (255, True, 1), (255, False, 4)])
def test_escape_q_and_the_close_button_quit(webcam, weights, tmp_path, monkeypatch, key, closed, shown):
    seen = []
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr(cv2, "namedWindow", lambda *args: None)
    monkeypatch.setattr(cv2, "destroyWindow", lambda title: seen.append(title))
    monkeypatch.setattr(cv2, "imshow", lambda title, pixels: seen.append(pixels.shape))
    monkeypatch.setattr(cv2, "waitKey", lambda delay: key)
    monkeypatch.setattr(cv2, "getWindowProperty", lambda *args: -1.0 if closed else 1.0)
    webcam("--source", film(tmp_path / "film.avi", 4), "--weights", weights)
    assert seen == [(SIZE[1], SIZE[0], 3)] * shown + ["COCO detections"]


def test_heat_maps_and_sizes_can_be_set_on_the_command_line(webcam, weights, tmp_path):
    source, output = film(tmp_path / "film.avi", 2), tmp_path / "found.avi"
    options = ("--show-mask-heatmaps", "--masks-per-dim", 2, "--min-image-size", 48, "--confidence-threshold", 0.0)
    webcam("--source", source, "--no-window", "--output", output, "--weights", weights, *options, "DTYPE", "float32")
    found, _ = frames_of(output)
    assert len(found) == 2 and found[0].shape[:2] == (SIZE[1], SIZE[0])


def test_invalid_arguments_are_errors_before_the_model_is_loaded(webcam, tmp_path, monkeypatch):
    def never(*args, **kwargs):
        raise AssertionError("the model must not be loaded")

    monkeypatch.setattr(webcam.module, "make_predictor", never)
    source = film(tmp_path / "film.avi", 1)
    for args, message in (
        (("--confidence-threshold", 7), "--confidence-threshold must be 0 to 1, got 7"),
        (("--masks-per-dim", 0), "--masks-per-dim must be at least 1, got 0"),
        (
            ("DTYPE", "auto", "MODEL.WEIGHT", "x.pth"),
            "MODEL.WEIGHT has no effect without --config-file: give --weights",
        ),
        (("--source", tmp_path / "flim.avi"), "no such video file"),
        (("--source", source, "--output", tmp_path / "found.gif"), r"\.mp4.*got '\.gif'"),
    ):
        with pytest.raises(ValueError, match=message):
            webcam("--no-window", *args)
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    if sys.platform.startswith("linux"):
        with pytest.raises(OSError, match="no display"):
            webcam("--source", source)


def test_without_arguments_the_packages_model_finds_digits_and_says_what_to_do(webcam, monkeypatch, capsys):
    image = cv2.imread(sample_image())
    frame = cv2.copyMakeBorder(image, 0, 0, 80, 80, cv2.BORDER_REPLICATE)  # 640 x 480, as cameras are

    class Camera:
        rate, dropped, name = 10.0, 0, "camera 0"

        def __iter__(self):
            yield Frame(frame, 0, 0.0)

        def close(self):
            pass

    opened, found, notes = [], [], []
    monkeypatch.setattr(webcam.module, "open_video", lambda source: opened.append(source) or Camera())
    monkeypatch.setattr(webcam.module, "Window", lambda title: Camera())
    monkeypatch.setattr(Camera, "show", lambda self, pixels: True, raising=False)
    draw_note = webcam.module.draw_note
    monkeypatch.setattr(webcam.module, "draw_note", lambda image, text: notes.append(text) or draw_note(image, text))
    demo = webcam.module.COCODemo
    tags = demo.overlay_class_names
    monkeypatch.setattr(
        demo, "overlay_class_names", lambda self, pixels, top: found.append((self, top)) or tags(self, pixels, top)
    )
    webcam()
    ((shown, predictions),) = found
    names = [shown.CATEGORIES[label] for label in predictions.get_field("labels").tolist()]
    assert opened == ["0"] and sorted(names) == sorted(name for name, _ in sample_objects())
    assert "FPS   hold a handwritten digit to the camera" in notes[0]
    assert "Hold a handwritten digit to the camera." in capsys.readouterr().out


def test_heat_maps_without_arguments_are_those_of_the_packages_model_with_masks(webcam, tmp_path):
    writer = VideoWriter(tmp_path / "film.avi", 10.0)
    writer.write(cv2.imread(sample_image()))
    writer.close()
    source, output = tmp_path / "film.avi", tmp_path / "found.avi"
    webcam("--source", source, "--no-window", "--output", output, "--show-mask-heatmaps")
    found, _ = frames_of(output)
    assert len(found) == 1 and np.ptp(found[0]) > 100


def test_a_file_and_a_model_of_ones_own_need_no_hint(webcam, weights, tmp_path, capsys):
    source = film(tmp_path / "film.avi", 1)
    webcam("--source", source, "--no-window")
    webcam("--source", source, "--no-window", "--weights", weights)
    assert "to the camera" not in capsys.readouterr().out


# ---- in subprocesses


def start(*args, **environment):
    command = [sys.executable, str(ROOT / "demo" / "webcam.py"), *map(str, args)]
    unset = ("DISPLAY", "WAYLAND_DISPLAY", "XDG_RUNTIME_DIR", "QT_QPA_PLATFORM")
    env = {name: value for name, value in os.environ.items() if name not in unset}
    env |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment}
    return subprocess.Popen(command, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


@pytest.mark.slow
def test_headless_process_writes_a_video_of_a_stream(weights, tmp_path):
    film(tmp_path / "film.avi", 20)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        address = f"http://127.0.0.1:{server.server_port}/film.avi"
        output = tmp_path / "found.mp4"
        with start("--source", address, "--no-window", "--output", output, "--weights", weights) as process:
            printed = process.communicate(timeout=120)[0]
    finally:
        server.shutdown()
        server.server_close()
    assert process.returncode == 0, printed
    assert "frames in" in printed and len(frames_of(output)[0]) > 0


@pytest.mark.slow
def test_process_without_display_prints_one_line(weights, tmp_path):
    with start("--source", film(tmp_path / "film.avi", 2), "--weights", weights) as process:
        printed = process.communicate(timeout=120)[0]
    assert process.returncode == 1 and "Traceback" not in printed and "give --no-window" in printed


@pytest.fixture
def virtual_display(tmp_path):
    """Start Xvfb; yield the name of the display and a function that reads its screen, (H, W, 3) uint8 BGR."""
    if shutil.which("Xvfb") is None:
        pytest.skip("Xvfb is not installed (apt-get install xvfb)")
    read_end, write_end = os.pipe()
    command = ["Xvfb", "-displayfd", str(write_end), "-screen", "0", "640x480x24", "-fbdir", str(tmp_path)]
    process = subprocess.Popen(command, pass_fds=[write_end], stderr=subprocess.DEVNULL)
    os.close(write_end)
    with os.fdopen(read_end) as pipe:
        number = pipe.readline().strip()

    def screen():
        # X window dump: big-endian header, colour map of 12 bytes per entry, then rows of blue, green, red, unused
        data = (tmp_path / "Xvfb_screen0").read_bytes()
        header = np.frombuffer(data, ">u4", 25)
        width, height, row, colors = (int(header[k]) for k in (4, 5, 12, 19))
        pixels = np.frombuffer(data, np.uint8, row * height, int(header[0]) + 12 * colors)
        return pixels.reshape(height, row)[:, : 4 * width].reshape(height, width, 4)[:, :, :3]

    yield f":{number}", screen
    process.terminate()
    process.wait(10)


@pytest.mark.slow
def test_window_shows_the_drawn_frames_under_xvfb(virtual_display, weights, tmp_path):
    display, screen = virtual_display
    # long, so that the screen is looked at in time on a busy machine
    source, output = film(tmp_path / "film.avi", 1000), tmp_path / "found.avi"
    assert not screen().any()
    args = ("--source", source, "--output", output, "--weights", weights, "--confidence-threshold", 0.2)
    with start(*args, DISPLAY=display) as process:
        end, gray = time.monotonic() + 60, 0
        while gray < 2000 and time.monotonic() < end and process.poll() is None:
            gray = int((np.abs(screen().astype(int) - 90) <= 3).all(axis=2).sum())  # the background of the video
            time.sleep(0.05)
        printed = process.communicate(timeout=120)[0]
    assert process.returncode == 0, printed
    assert gray >= 2000, printed
    assert len(frames_of(output)[0]) == 1000
