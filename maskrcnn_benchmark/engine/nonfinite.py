"""Stop a training at a non-finite loss, and save the batch for debugging."""

from __future__ import annotations

import logging
import math
import os
from numbers import Number

import torch

from maskrcnn_benchmark.utils.comm import all_gather, get_rank


def stop_at_nonfinite_loss(iteration: int, batches: list, losses: list[dict], dataset, output_dir: str) -> None:
    """Save this process's batches if one has a non-finite loss, and raise the same error on every process.

    Every process must call it.

    Args:
        iteration: iteration of the loss, counted from 1. The weights are those before its step.
        batches: micro-batches (ImageList, BoxLists, dataset indices) of this process.
        losses: for each micro-batch, the losses of this process as scalar tensors.
        dataset: converts indices to image ids if it has `image_id(index)`.
        output_dir: folder of nonfinite_batch_rank<rank>.pth; "" is the working directory.

    Raises:
        FloatingPointError: always. The message has the iteration and, for every process with a non-finite loss, the
            losses, the image ids and the file.
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
        f"The loss of iteration {iteration} is not finite. The weights were not updated with it.\n"
        + "\n".join(reports)
        + "\nUsual causes: SOLVER.BASE_LR is too high, the warm-up is too short, DTYPE float16 (try bfloat16), "
        "a broken annotation. SOLVER.CLIP_GRADIENTS limits the gradients."
    )


def _image_id(dataset, index):
    image_id = getattr(dataset, "image_id", None)
    return image_id(index) if image_id is not None else index


def _describe(dataset, images, targets, indices, losses) -> dict:
    """Convert a micro-batch to tensors and plain types."""
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
