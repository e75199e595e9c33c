"""Stopping at a loss that is not finite, with all that is needed to find out why."""

from __future__ import annotations

import logging
import math
import os
from numbers import Number

import torch

from maskrcnn_benchmark.utils.comm import all_gather, get_rank


def stop_at_nonfinite_loss(iteration: int, batches: list, losses: list[dict], dataset, output_dir: str) -> None:
    """Saves this process's batches and raises the same error on every process; all of them have to call it.

    Args:
        iteration: the step that was about to be taken, counted from 1; the weights are still those before it.
        batches: micro-batches (ImageList, BoxLists, dataset indices) of this process.
        losses: per micro-batch the loss parts of this process, as scalar tensors.
        dataset: to translate indices into image ids, by `image_id(index)` where it has that.
        output_dir: where nonfinite_batch_rank<rank>.pth goes; "" is the working directory.

    Raises:
        FloatingPointError: always. It names the iteration, and for every process with such a loss the loss parts, the
            images and the file.
    """
    report = None
    losses = [{name: float(value) for name, value in parts.items()} for parts in losses]
    if not all(math.isfinite(value) for parts in losses for value in parts.values()):
        path = os.path.join(output_dir, f"nonfinite_batch_rank{get_rank()}.pth")
        report = "\n".join(
            f"  process {get_rank()}: image ids {[_image_id(dataset, i) for i in indices]}, "
            + ", ".join(f"{name} {value:g}" for name, value in parts.items())
            for (_, _, indices), parts in zip(batches, losses, strict=True)
            if not all(math.isfinite(value) for value in parts.values())
        )
        report += f"\n  saved as {path}"
        batch = {
            "iteration": iteration,
            "micro_batches": [_describe(dataset, *batch, parts) for batch, parts in zip(batches, losses, strict=True)],
        }
        try:
            torch.save(batch, path)
        except OSError as error:  # a full disk must not hide the error that matters, nor hang the other processes
            logging.getLogger(__name__).error("Could not save %s: %s", path, error)
    reports = [text for text in all_gather(report) if text is not None]
    raise FloatingPointError(
        f"The loss of iteration {iteration} is not finite. No step was taken with it.\n"
        + "\n".join(reports)
        + "\nUsual reasons: too high a SOLVER.BASE_LR, too short a warm-up, DTYPE float16 (try bfloat16), "
        "a broken annotation; SOLVER.CLIP_GRADIENTS bounds the gradients."
    )


def _image_id(dataset, index):
    image_id = getattr(dataset, "image_id", None)
    return image_id(index) if image_id is not None else index


def _describe(dataset, images, targets, indices, losses) -> dict:
    """A micro-batch in tensors and plain types."""
    return {
        "losses": losses,
        "indices": [int(i) for i in indices],
        "image_ids": [i if isinstance(i, (str, Number)) else str(i) for i in (_image_id(dataset, j) for j in indices)],
        "images": images.tensors.cpu(),
        "image_sizes": [tuple(int(side) for side in size) for size in images.image_sizes],
        "targets": [
            {
                "bbox": target.bbox.cpu(),
                "size": tuple(target.size),
                "mode": target.mode,
                **{name: value.cpu() for name, value in target.extra_fields.items() if isinstance(value, torch.Tensor)},
            }
            for target in targets
        ],
    }
