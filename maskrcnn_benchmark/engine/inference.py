"""Predict whole datasets with a model and evaluate the predictions."""

from __future__ import annotations

import logging
import os

import torch

from maskrcnn_benchmark.engine import stopping
from maskrcnn_benchmark.engine.bbox_aug import takes_bbox_aug
from maskrcnn_benchmark.engine.progress import ProgressBar
from maskrcnn_benchmark.engine.run_model import run_model
from maskrcnn_benchmark.evaluation import EvaluationOptions, evaluate, save_predictions
from maskrcnn_benchmark.structures.bounding_box import BoxList
from maskrcnn_benchmark.utils.comm import gather, get_world_size, is_main_process, synchronize
from maskrcnn_benchmark.utils.compute_dtype import autocast
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
    """Predict a dataset with all processes, and evaluate it on rank 0.

    Args:
        model: model on `device`.
        data_loader: this process's share, in batches (ImageList, targets, dataset indices). `data_loader.dataset` is
            the whole dataset. Images may have any type that the model accepts.
        dataset_name: for the log.
        box_only, iou_types, expected_results, expected_results_sigma_tol: arguments of the evaluation.
        output_folder: existing folder for predictions.pth and the evaluation's files; None or "" writes nothing.
        dtype: dtype of mixed precision (torch.amp).
        options: options of the evaluation; box_only and iou_types override its own.

    Returns:
        The result of `evaluation.evaluate` on rank 0, None on other ranks.
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
    """Predict the images of a loader with the model in eval mode.

    Args:
        timer: accumulates the time in the model, including copies from and to the device.

    Returns:
        This process's predictions by dataset index, on the CPU, in pixels of the network input.

    Raises:
        Stopped: SIGTERM or Ctrl-C, on this process or another.
    """
    device = torch.device(device)
    model.eval()
    progress = ProgressBar(len(data_loader), enabled=is_main_process(), unit="batch")
    predictions = {}
    with stopping.deferred("this batch") as stop:
        for images, _, indices in data_loader:
            if stop:
                break
            if timer is not None:
                timer.tic()
            if hasattr(images, "to"):  # test-time augmentation has PIL images, which have no device
                images = images.to(device, non_blocking=True)
            sizes = (_original_size(data_loader.dataset, index) for index in indices)
            with torch.inference_mode(), autocast(device, dtype):
                outputs = run_model(model, images, sizes)
                outputs = [output.to("cpu") for output in outputs]
            # Tensors made in inference mode cannot be changed in place outside of it; indexing returns tensors that
            # can.
            outputs = [output[torch.arange(len(output))] for output in outputs]
            if timer is not None:
                timer.toc()
            predictions.update(zip(indices, outputs, strict=True))
            progress.advance()
        progress.close()
        if stop.on_any_process():
            stop.honour()
    return predictions


def _original_size(dataset, index: int) -> tuple[int, int]:
    info = dataset.get_img_info(index)
    return info["width"], info["height"]


def gather_predictions(predictions: dict[int, BoxList], count: int) -> list[BoxList | None] | None:
    """Gather the predictions of all processes.

    Args:
        predictions: this process's predictions by dataset index.
        count: images in the dataset.

    Returns:
        List of `count` predictions on rank 0, with None for images without one; None on other ranks.
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
