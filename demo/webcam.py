"""Show the detections of a model in a camera, a stream or a video.

    python demo/webcam.py
    python demo/webcam.py --source film.mp4 --output found.mp4 --no-window --weights model_final.pth --track

Without --config-file and --weights, the package's own model of handwritten digits is used: hold a digit, written with a
thick pen, to the camera. Escape or q quits.

Frames of a camera or stream that arrive while the model is busy are dropped. Every frame of a file is processed.
"""

# First, because the import runs the user's set-up code, if there is any.
import maskrcnn_benchmark.utils.env  # noqa: F401  # isort: skip
from maskrcnn_benchmark.engine import process  # isort: skip

process.before_torch()

import argparse
import contextlib
import logging
import time
from collections import deque

import numpy as np
from predictor import COCODemo

from maskrcnn_benchmark.engine import script
from maskrcnn_benchmark.engine.predictor import Predictor
from maskrcnn_benchmark.engine.tracking import Tracker
from maskrcnn_benchmark.engine.video import VideoFile, VideoWriter, Window, open_video
from maskrcnn_benchmark.utils.logger import setup_logger
from maskrcnn_benchmark.visual.drawing import draw_note

TITLE = "COCO detections"
ZOO_MODEL, ZOO_MODEL_WITH_MASKS = "digits_fcos", "digits_mask_rcnn"
HINT = "hold a handwritten digit to the camera"
# Number of frames over which the displayed rate is averaged.
AVERAGED = 20
# Minimum score of objects that continue a track.
TRACKED_SCORE = 0.1


def make_parser() -> argparse.ArgumentParser:
    parser = script.make_parser(__doc__)
    parser.add_argument("--config-file", metavar="FILE", help="config file (default: the config in --weights)")
    parser.add_argument("--weights", metavar="FILE", help="checkpoint (default: MODEL.WEIGHT of --config-file)")
    parser.add_argument(
        "--confidence-threshold", type=float, default=0.7, metavar="S", help="minimum score (default: %(default)s)"
    )
    parser.add_argument(
        "--min-image-size",
        type=int,
        metavar="PIXELS",
        help="short side of the network input; smaller is faster (default: INPUT.MIN_SIZE_TEST)",
    )
    parser.add_argument("--show-mask-heatmaps", action="store_true", help="show mask probabilities instead of objects")
    parser.add_argument(
        "--masks-per-dim", type=int, default=2, metavar="N", help="rows and columns of heat maps (default: %(default)s)"
    )
    parser.add_argument(
        "--source", default="0", help="camera number, video file, or address of a stream (default: %(default)s)"
    )
    parser.add_argument("--output", metavar="FILE", help="video to write: .mp4, .mkv, .mov or .avi")
    parser.add_argument("--no-window", action="store_true", help="do not open a window, for machines without a display")
    parser.add_argument("--track", action="store_true", help="track the objects from frame to frame")
    parser.add_argument("opts", nargs=argparse.REMAINDER, help="config overrides, KEY VALUE KEY VALUE ...")
    return parser


def own_model(args) -> str | None:
    """Return the name of the package's model that is used, None if the command line names another."""
    if args.config_file or args.weights:
        return None
    return ZOO_MODEL_WITH_MASKS if args.show_mask_heatmaps else ZOO_MODEL


def make_predictor(args) -> Predictor:
    """Load the model named on the command line, or the package's own."""
    size = [] if args.min_image_size is None else ["INPUT.MIN_SIZE_TEST", args.min_image_size]
    opts, name = [*args.opts, *size], own_model(args)
    if name:  # all scores: COCODemo has a threshold, and the tracker continues objects below it
        return Predictor.from_zoo(name, opts=opts, score_threshold=None)
    return Predictor(args.config_file, args.weights, opts=opts)


def check_args(args) -> None:
    """Check the arguments before a model is loaded.

    Raises:
        ValueError: a number is out of range, or MODEL.WEIGHT would have no effect.
    """
    if not 0 <= args.confidence_threshold <= 1:
        raise ValueError(f"--confidence-threshold must be 0 to 1, got {args.confidence_threshold}")
    for name in ("min_image_size", "masks_per_dim"):
        if getattr(args, name) is not None and getattr(args, name) < 1:
            raise ValueError(f"--{name.replace('_', '-')} must be at least 1, got {getattr(args, name)}")
    if "MODEL.WEIGHT" in args.opts[::2] and not args.config_file:
        raise ValueError("MODEL.WEIGHT has no effect without --config-file: give --weights FILE")


def with_rate(image: np.ndarray, rate: float, hint: str = "") -> np.ndarray:
    """Draw the rate, such as "12.3 FPS", and a hint in the lower left corner of an image (H, W, 3) uint8 BGR."""
    note = f"{rate:.1f} FPS   {hint}".rstrip()
    return np.ascontiguousarray(draw_note(np.ascontiguousarray(image[:, :, ::-1]), note)[:, :, ::-1])


def show(demo: COCODemo, video, writer: VideoWriter | None, window: Window | None, hint: str = "") -> str:
    """Predict, draw and show every frame, with a hint to the user; return a summary line."""
    ends: deque[float] = deque(maxlen=AVERAGED + 1)
    first = time.perf_counter()
    ends.append(first)
    count, number = 0, -1
    for frame in video:
        start = time.perf_counter()
        drawn = demo.run_on_opencv_image(frame.pixels, frame.number - number)
        number, now = frame.number, time.perf_counter()
        print(f"Time: {now - start:.2f} s / img")
        ends.append(now)
        drawn = with_rate(drawn, (len(ends) - 1) / max(ends[-1] - ends[0], 1e-9), hint)
        count += 1
        if writer is not None:
            writer.write(drawn, None if isinstance(video, VideoFile) else frame.seconds)
        if window is not None and not window.show(drawn):
            break
    seconds = time.perf_counter() - first
    line = f"{count} frames in {seconds:.1f} s, {count / seconds:.1f} per second, {video.dropped} dropped"
    if demo.tracker is not None:
        line += f"; {demo.tracker.count} objects were tracked"
    return line


def main() -> None:
    args = make_parser().parse_args()
    check_args(args)
    logger = setup_logger("maskrcnn_benchmark", "", 0, stdout_level=logging.INFO)
    with contextlib.ExitStack() as at_end:

        def closed(opened):
            at_end.callback(opened.close)
            return opened

        # quick checks first; the camera, which may be busy, before the model
        window = None if args.no_window else closed(Window(TITLE))
        video = closed(open_video(args.source))
        writer = closed(VideoWriter(args.output, video.rate)) if args.output else None
        predictor = make_predictor(args)
        process.prepare(logger, on_cpu=predictor.device.type == "cpu", keep_memory=True)
        hint = HINT if own_model(args) and not isinstance(video, VideoFile) else ""
        if hint:
            print(f"{hint[0].upper()}{hint[1:]}. Escape or q quits.")
        tracker = None
        if args.track:
            low = min(TRACKED_SCORE, args.confidence_threshold)
            tracker = Tracker(high=args.confidence_threshold, low=low, patience=video.rate)
        demo = COCODemo(
            confidence_threshold=args.confidence_threshold,
            show_mask_heatmaps=args.show_mask_heatmaps,
            masks_per_dim=args.masks_per_dim,
            predictor=predictor,
            tracker=tracker,
        )
        line = show(demo, video, writer, window, hint)
    print(f"{line}; written to {args.output}" if args.output else line)


if __name__ == "__main__":
    script.run(main)
