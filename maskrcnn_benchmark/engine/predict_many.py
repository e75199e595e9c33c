"""Predict many images into a folder, in several processes, and resume after an interruption."""

from __future__ import annotations

import glob
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from maskrcnn_benchmark.engine import stopping
from maskrcnn_benchmark.engine.image_sources import ImageSource, count_frames, frames
from maskrcnn_benchmark.engine.prediction_files import to_json
from maskrcnn_benchmark.engine.prediction_journal import PARTS, Journal, join_parts, read_done, remove_parts
from maskrcnn_benchmark.engine.progress import ProgressBar
from maskrcnn_benchmark.utils.comm import get_rank, get_world_size, is_main_process, synchronize

# Threads that draw and write, and the most images that wait for them.
WRITERS = 2
WAITING = 8
# Seconds between two checks whether the other processes are done.
POLL = 0.2


@dataclass
class ManyOutcome:
    """Result of `predict_many` on this process.

    Attributes:
        images: number of images predicted.
        done_before: number of images that earlier runs had finished.
        unreadable: (name, reason) of each image that could not be read.
        seconds: time of the whole pipeline.
        model_seconds: time in the model, a part of `seconds`.
    """

    images: int = 0
    done_before: int = 0
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    seconds: float = 0.0
    model_seconds: float = 0.0

    def throughput(self) -> str:
        """Format the images per second of the pipeline and the model's share of its time."""
        if not self.images:
            return "no images were predicted"
        share, images = self.model_seconds / self.seconds, "image" if self.images == 1 else "images"
        return (
            f"{self.images:,} {images} in {self.seconds:.1f} s: {self.images / self.seconds:.2f} images/s from file to "
            f"JSON, {share:.0%} of that time in the model"
        )


def predict_many(
    predictor,
    sources: Sequence[ImageSource],
    output: str,
    settings: dict,
    *,
    resume: bool = False,
    overwrite: bool = False,
    every: int = 1,
    keep_images: bool = False,
    write: Sequence[Callable] = (),
    track: Callable | None = None,
) -> ManyOutcome:
    """Predict this process's share of the sources and write OUTPUT/predictions.jsonl. Every process must call it.

    Args:
        predictor: Predictor.
        sources: the same list on every process.
        output: folder shared by all processes.
        settings: everything that affects the results. A resumed run requires equal settings.
        resume: skip images that an earlier run finished.
        overwrite: delete the results of an earlier run and start over.
        every: predict every n-th frame of a video.
        keep_images: keep images in memory for `write`.
        write: functions (prediction, name) -> None, called in threads for each image before its line is written.
        track: function (prediction, name) -> prediction, called in order, see `VideoTracks`. Requires one process.

    Returns:
        ManyOutcome of this process.

    Raises:
        ValueError: an earlier run left results, and neither resume nor overwrite is set, or its settings differ.
        Stopped: SIGTERM or Ctrl-C. Finished images are on disk.
    """
    rank, world_size = get_rank(), get_world_size()
    done = _start(output, settings, resume, overwrite)
    outcome = ManyOutcome(done_before=len(done))
    total = sum(_length(source, every) for source in sources) // world_size
    progress = ProgressBar(total, initial=len(done) // world_size, enabled=is_main_process(), unit="image")
    names: deque[str] = deque()
    items = _items(sources, done, every, rank, world_size, names, outcome)
    start, model_before = time.perf_counter(), predictor.model_seconds
    with (
        Journal(output, rank, settings) as journal,
        ThreadPoolExecutor(WRITERS, thread_name_prefix="write") as writers,
        stopping.deferred("this image") as stop,
    ):
        pending: deque = deque()
        results = predictor.stream(items, errors="yield", keep_images=keep_images, channel_order="rgb")
        for result in results:
            name = names.popleft()
            if track is not None and not isinstance(result, Exception):
                result = track(result, name)
            pending.append((name, writers.submit(_write_one, result, name, write)))
            if len(pending) > WAITING:
                _finish(pending.popleft(), journal, outcome)
            progress.advance()
            if stop:
                break
        results.close()
        while pending:
            _finish(pending.popleft(), journal, outcome)
        for name, reason in outcome.unreadable:
            journal.add({"file_name": name, "error": reason})
        outcome.seconds = time.perf_counter() - start
        outcome.model_seconds = predictor.model_seconds - model_before
        progress.close()
    if stop:
        raise stopping.Stopped(stop.number)
    _join(output, [source.name for source in sources], settings, rank, world_size)
    return outcome


def _start(output: str, settings: dict, resume: bool, overwrite: bool) -> set[str]:
    """Delete or read the results of earlier runs before any process writes; return the names of finished images."""
    # torchrun starts the same command again after a failure
    resume = resume or int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0
    os.makedirs(output, exist_ok=True)
    if overwrite and not resume:
        if is_main_process():
            remove_parts(output)
        synchronize()
    done = read_done(output, settings)
    if done and not resume:
        raise ValueError(
            f"{output} has the results of {len(done):,} images of an earlier run: --resume continues with the others, "
            "--overwrite starts over."
        )
    if is_main_process():
        for path in _marks(output):
            os.remove(path)
    synchronize()
    return done


def _items(
    sources: Sequence[ImageSource],
    done: set[str],
    every: int,
    rank: int,
    world_size: int,
    names: deque[str],
    outcome: ManyOutcome,
) -> Iterator[str | np.ndarray]:
    """Yield the paths and frames of this process's share, and append their names to `names`."""
    for position, source in enumerate(sources):
        if not source.is_video:
            if position % world_size == rank and source.name not in done:
                names.append(source.name)
                yield source.path
            continue

        def wanted(number: int, source=source, position=position) -> bool:
            mine = number % every == 0 and (position + number // every) % world_size == rank
            return mine and frame_name(source, number) not in done

        try:
            for number, pixels in frames(source.path, wanted):
                names.append(frame_name(source, number))
                yield pixels
        except OSError as error:
            outcome.unreadable.append((source.name, str(error)))


def frame_name(source: ImageSource, number: int) -> str:
    """Return the name of a frame in the outputs, VIDEO/NUMBER.jpg."""
    return f"{source.name}/{number:06d}.jpg"


def _write_one(result, name: str, write: Sequence[Callable]) -> dict:
    if isinstance(result, Exception):
        return {"file_name": name, "error": str(result)}
    for each in write:
        each(result, name)
    return to_json(result, name)


def _finish(pending: tuple, journal: Journal, outcome: ManyOutcome) -> None:
    name, future = pending
    line = future.result()
    if "error" in line:
        outcome.unreadable.append((name, line["error"]))
    else:
        journal.add(line)
        outcome.images += 1


def _length(source: ImageSource, every: int) -> int:
    return -(-count_frames(source.path) // every) if source.is_video else 1


def _marks(output: str) -> list[str]:
    """List the files by which processes report that they are done."""
    return glob.glob(os.path.join(glob.escape(output), PARTS, "*.done"))


def _join(output: str, names: list[str], settings: dict, rank: int, world_size: int) -> None:
    """Join the parts on rank 0 when all processes are done.

    Processes wait for each other by files, because a collective of the process group times out after minutes.
    """
    if world_size > 1:
        with open(os.path.join(output, PARTS, f"{rank}.done"), "w"):
            pass
        if rank == 0:
            while len(_marks(output)) < world_size:
                time.sleep(POLL)
    if rank == 0:
        for path in _marks(output):
            os.remove(path)
        join_parts(output, names, settings)
