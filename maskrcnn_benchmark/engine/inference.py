"""Testing: predictions of a model for whole data sets, and their evaluation."""

from __future__ import annotations

import contextlib
import logging
import os

import torch

from maskrcnn_benchmark.engine import stopping
from maskrcnn_benchmark.engine.bbox_aug import takes_bbox_aug
from maskrcnn_benchmark.engine.progress import ProgressBar
from maskrcnn_benchmark.evaluation import EvaluationOptions, evaluate, save_predictions
from maskrcnn_benchmark.structures.bounding_box import BoxList
from maskrcnn_benchmark.utils.comm import gather, get_world_size, is_main_process, synchronize
from maskrcnn_benchmark.utils.timer import Timer, get_time_str

logger = logging.getLogger("maskrcnn_benchmark.inference")


@takes_bbox_aug(place=5)
def inference(
    model: torch.nn.Module,
    data_loader,
    dataset_name: str,
    iou_types=("bbox",),
    box_only: bool = False,
    device: torch.device | str = "cuda",
    expected_results=(),
    expected_results_sigma_tol: float = 4,
    output_folder: str | None = None,
    *,
    dtype: torch.dtype = torch.float32,
    options: EvaluationOptions | None = None,
):
    """Predicts a data set with all processes together and evaluates it on rank 0.

    Args:
        data_loader: this process's share, in batches (ImageList, targets, data set indices); `data_loader.dataset` is
            the whole data set. In place of the ImageList may stand whatever else the model takes.
        box_only, iou_types, expected_results, expected_results_sigma_tol: for the evaluation.
        output_folder: existing folder for predictions.pth and the evaluation's files; None or "" writes nothing.
        dtype: of mixed precision (torch.amp).
        options: of the evaluation; box_only and iou_types take the place of its own.

    Returns:
        What `evaluation.evaluate` returns on rank 0, None on the others.
    """
    device = torch.device(device)
    devices = get_world_size()
    dataset = data_loader.dataset
    logger.info("Start evaluation on %s dataset(%d images).", dataset_name, len(dataset))
    total_timer, inference_timer = Timer(), Timer()
    total_timer.tic()
    predictions = compute_on_dataset(model, data_loader, device, inference_timer, dtype=dtype)
    synchronize()
    total_timer.toc()
    for title, seconds in (
        ("Total run time", total_timer.total_time),
        ("Model inference time", inference_timer.total_time),
    ):
        per_image = seconds * devices / max(len(dataset), 1)
        logger.info("%s: %s (%s s / img per device, on %d devices)", title, get_time_str(seconds), per_image, devices)

    predictions = gather_predictions(predictions, len(dataset))
    if predictions is None:
        return None
    if output_folder:
        save_predictions(predictions, os.path.join(output_folder, "predictions.pth"))
    return evaluate(
        dataset=dataset,
        predictions=predictions,
        output_folder=output_folder,
        box_only=box_only,
        iou_types=iou_types,
        expected_results=expected_results,
        expected_results_sigma_tol=expected_results_sigma_tol,
        options=options,
    )


@takes_bbox_aug(place=3)
def compute_on_dataset(
    model: torch.nn.Module,
    data_loader,
    device: torch.device | str,
    timer: Timer | None = None,
    *,
    dtype: torch.dtype = torch.float32,
) -> dict[int, BoxList]:
    """Predict a dataset, with the model in eval mode.

    Args:
        timer: adds up the time in the model, copies from and to the device included.

    Returns:
        Predictions of this process by dataset index, on the CPU, in pixels of the network input.

    Raises:
        Stopped: SIGTERM or Ctrl-C, on this process or another.
    """
    device = torch.device(device)
    model.eval()
    autocast = contextlib.nullcontext() if dtype == torch.float32 else torch.autocast(device.type, dtype=dtype)
    progress = ProgressBar(len(data_loader), enabled=is_main_process(), unit="batch")
    predictions = {}
    with stopping.deferred("this batch") as stop:
        for images, _, indices in data_loader:
            if stop:
                break
            if timer is not None:
                timer.tic()
            if hasattr(images, "to"):  # PIL images of test-time augmentation go to the model as they are
                images = images.to(device, non_blocking=True)
            with torch.inference_mode(), autocast:
                outputs = model(images, **_output_sizes(model, data_loader.dataset, indices))
                outputs = [output.to("cpu") for output in outputs]
            # Copied to the CPU, so the device is done. A tensor made in inference mode may not be changed in place
            # outside of it; what indexing gives may.
            outputs = [output[torch.arange(len(output))] for output in outputs]
            if timer is not None:
                timer.toc()
            predictions.update(zip(indices, outputs, strict=True))
            progress.advance()
        progress.close()
        if stop.on_any_process():
            stop.honour()
    return predictions


def _output_sizes(model: torch.nn.Module, dataset, indices) -> dict:
    """The argument output_sizes, (width, height) of the original pictures, for a model that takes it."""
    if not getattr(model, "takes_output_sizes", False):
        return {}
    infos = [dataset.get_img_info(index) for index in indices]
    return {"output_sizes": [(info["width"], info["height"]) for info in infos]}


def gather_predictions(predictions: dict[int, BoxList], count: int) -> list[BoxList | None] | None:
    """The predictions of all processes, by data set index, on rank 0; None on the others.

    Args:
        count: pictures in the data set. One that no process predicted gets None.
    """
    gathered = gather(predictions)
    if gathered is None:
        return None
    merged = {index: prediction for part in gathered for index, prediction in part.items()}
    missing = count - len(merged)
    if missing:
        logger.warning(
            "Number of images that were gathered from multiple processes is not a contiguous set. "
            "Some images might be missing from the evaluation: %d of %d",
            missing,
            count,
        )
    return [merged.get(index) for index in range(count)]
