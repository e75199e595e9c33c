"""Measure time, memory, FLOPs and energy of several configs, interleaved in one process. Start at `measure`."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass

import numpy as np
import torch

from maskrcnn_benchmark.checkpoint.checkpointer import DetectronCheckpointer
from maskrcnn_benchmark.data.collate_batch import BatchCollator
from maskrcnn_benchmark.data.transforms import build_transforms
from maskrcnn_benchmark.engine.run_model import run_model
from maskrcnn_benchmark.engine.training_step import TrainingStep
from maskrcnn_benchmark.fast.compiled import compile_dense_part
from maskrcnn_benchmark.fast.for_inference import for_inference
from maskrcnn_benchmark.layers.norm import FrozenBatchNorm2d
from maskrcnn_benchmark.modeling.detector import build_detection_model
from maskrcnn_benchmark.modeling.roi_heads.mask_head.inference import mask_pasting
from maskrcnn_benchmark.solver import make_optimizer
from maskrcnn_benchmark.structures.paste_masks import paste_rles
from maskrcnn_benchmark.utils.compute_dtype import autocast, compute_dtype

from .energy import EnergyReadError, energy_meter
from .flops import count_multiply_adds
from .peak_memory import MemoryMeter
from .random_weights import set_score_thresholds, set_statistics
from .stages import STAGES, StageClock, synchronize

LOADING = ("load", "preprocess")  # stages that loader processes run in parallel to the model
ENERGY_SECONDS = 2.0  # counters advance in steps of up to 0.1 s
TRAINING_STEPS = 3


@dataclass(frozen=True)
class Spread:
    """Median, 10th percentile (`low`) and 90th percentile (`high`) of repeated measurements."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values) -> Spread:
        low, median, high = np.percentile(values, (10, 50, 90)).tolist()
        return cls(median, low, high)


@dataclass
class Measurement:
    """Results of one config; None if not requested, or not available on the machine.

    Attributes:
        parameters: number of weights and biases, including frozen ones and those of norms, without norm statistics.
        multiply_adds: multiply-adds per image by stage, and "total".
        network_input: (height, width) of the first image after padding.
        detections: mean number of detections per image.
        stage_ms: milliseconds per image by stage.
        detect_ms: milliseconds per image, from the tensor on the device to detections in pixels of the original image,
            with masks as RLEs, or as the model's own masks of the image with POSTPROCESS_MASKS.
        images_per_second: 1000 / median of detect_ms.
        operations_per_second: 2 x multiply_adds / median of detect_ms.
        test_memory: peak memory of testing in bytes: model, images and activations.
        train_memory: the same for training, with the optimizer.
        train_ms: milliseconds per training step, without loading.
        joule_per_image: energy per image, including loading, see `energy_meter`.
    """

    name: str
    device: str
    dtype: str
    weights: str
    parameters: int
    multiply_adds: dict[str, int]
    network_input: tuple[int, int]
    detections: float
    stage_ms: dict[str, Spread]
    detect_ms: Spread
    images_per_second: float
    operations_per_second: float
    test_memory: int | None
    train_memory: int | None = None
    train_ms: Spread | None = None
    joule_per_image: float | None = None
    energy_source: str = ""


class Subject:
    """Model of one config, built and ready to be measured.

    Args:
        name: name in the table.
        cfg: config with valid MODEL.DEVICE and NUM_CLASSES.
        dataset: dataset without transforms, whose items are (PIL image, BoxList, index).
        weights: file. "" uses random weights, with score thresholds that keep TEST.DETECTIONS_PER_IMG detections.
    """

    def __init__(self, name: str, cfg, dataset, weights: str = ""):
        self.name, self.cfg, self.dataset, self.weights = name, cfg, dataset, weights
        self.device = torch.device(cfg.MODEL.DEVICE)
        self.dtype = compute_dtype(cfg.DTYPE, self.device)
        self.transforms = build_transforms(cfg, is_train=False)
        self.collate = BatchCollator(cfg.DATALOADER.SIZE_DIVISIBILITY)
        self.clock = StageClock(self.device)
        # None: the model pastes masks itself
        self.pasting = None if cfg.MODEL.ROI_MASK_HEAD.POSTPROCESS_MASKS else mask_pasting(cfg)
        count_multiply_adds(torch.nn.Identity(), lambda: None)  # its imports must not count as the model's memory
        memory = MemoryMeter(self.device)
        self.model, self.parameters = self._build_model()
        images = self._images(0)
        self.network_input = tuple(images.tensors.shape[-2:])
        self.multiply_adds = self._multiply_adds(images)
        if cfg.TEST.COMPILE:
            compile_dense_part(self.model)
        memory.start()
        self.detections = [self.detect(index) for index in range(len(dataset))]
        synchronize(self.device)
        self.test_memory = memory.peak()

    def _build_model(self):
        model = build_detection_model(self.cfg).to(self.device).eval()
        parameters = count_parameters(model)
        images = self._images(0)
        if self.weights:
            DetectronCheckpointer(self.cfg, model).load(self.weights, use_latest=False)
        else:
            set_statistics(model, lambda: model(images))
        model = for_inference(model, self.dtype, self.cfg.WINOGRAD)
        if not self.weights:
            with autocast(self.device, self.dtype):
                set_score_thresholds(model, lambda: model(images), self.cfg.TEST.DETECTIONS_PER_IMG)
        return model, parameters

    def _multiply_adds(self, images) -> dict[str, int]:
        with autocast(self.device, self.dtype):
            counts = count_multiply_adds(self.model, lambda: self.model(images))
        fpn, backbone = counts.get("backbone.fpn", 0), counts["backbone"]
        return {"backbone": backbone - fpn, "FPN": fpn, "heads": counts[""] - backbone, "total": counts[""]}

    def detect(self, index: int, by_stage: bool = True) -> int:
        """Predict one image from its file, with the times in `clock`; return the number of detections.

        Args:
            index: index of the image, modulo the size of the dataset.
            by_stage: measure the stages inside the model, which synchronizes a GPU between them.
        """
        clock = self.clock
        clock.restart()
        with clock.stage("load"):
            image, _, _ = self.dataset[index % len(self.dataset)]
        with clock.stage("preprocess"):
            images, _, _ = self.collate([(self.transforms(image), None, index)])
            images = images.to(self.device)
        inside = clock.inside(self.model) if by_stage else contextlib.nullcontext()
        with clock.stage("post-processing"), torch.inference_mode(), autocast(self.device, self.dtype), inside:
            (found,) = run_model(self.model, images, [image.size])
            found = found.to("cpu").resize(image.size)
            if found.has_field("mask") and self.pasting is not None:
                paste_rles(found.get_field("mask"), found.convert("xyxy").bbox, found.size, pasting=self.pasting)
        return len(found)

    def training_step(self, batch_size: int):
        """Return a function that runs one optimizer step on a fixed batch."""
        model = build_detection_model(self.cfg).to(self.device)
        transforms = build_transforms(self.cfg, is_train=True)
        batch = []
        for index in range(batch_size):
            image, target, _ = self.dataset[index % len(self.dataset)]
            batch.append((*transforms(image, target), index))
        batch = self.collate(batch)
        if self.weights:
            checkpointer = DetectronCheckpointer(self.cfg, model)
            checkpointer.load(self.weights, use_latest=False)
        else:
            model.eval()
            images = batch[0].to(self.device)
            set_statistics(model, lambda: model(images))
        step = TrainingStep(
            model.train(), make_optimizer(self.cfg, model), self.device, self.dtype, self.cfg.SOLVER.CLIP_GRADIENTS
        )

        def run():
            step.accumulate([batch])
            step.update()

        return run

    def _images(self, index: int):
        image, _, _ = self.dataset[index]
        return self.collate([(self.transforms(image), None, index)])[0].to(self.device)


def count_parameters(model: torch.nn.Module) -> int:
    """Count weights and biases, including those of frozen batch norms, which are buffers."""
    frozen = [module for module in model.modules() if isinstance(module, FrozenBatchNorm2d)]
    in_norms = sum(norm.weight.numel() + norm.bias.numel() for norm in frozen)
    return sum(parameter.numel() for parameter in model.parameters()) + in_norms


def measure(subjects: list[Subject], repeats: int, warm_up: int, train_images: int = 0) -> list[Measurement]:
    """Measure the configs, interleaved image by image.

    Args:
        subjects: models to measure.
        repeats: measured images per config.
        warm_up: images per config before them, which are not measured.
        train_images: batch size of a training step; 0 does not measure training.

    Returns:
        One Measurement per subject.
    """
    times = [[] for _ in subjects]
    detect_times = [[] for _ in subjects]
    for turn in range(-warm_up, repeats):
        for subject, stages, totals in zip(subjects, times, detect_times, strict=True):
            subject.detect(turn)
            seconds = dict(subject.clock.seconds)
            if subject.device.type == "cuda":
                subject.detect(turn, by_stage=False)
            if turn >= 0:
                stages.append(seconds)
                totals.append(sum(value for name, value in subject.clock.seconds.items() if name not in LOADING))
    measurements = [_summary(*each) for each in zip(subjects, times, detect_times, strict=True)]
    for subject, measurement in zip(subjects, measurements, strict=True):
        measurement.joule_per_image, measurement.energy_source = _energy(subject)
        if train_images:
            measurement.train_memory, measurement.train_ms = _training(subject, train_images)
    return measurements


def _summary(subject: Subject, stages: list[dict[str, float]], totals: list[float]) -> Measurement:
    detect_ms = Spread.of([seconds * 1e3 for seconds in totals])
    per_second = 1e3 / detect_ms.median
    return Measurement(
        name=subject.name,
        device=str(subject.device),
        dtype=str(subject.dtype).removeprefix("torch."),
        weights=subject.weights or "random",
        parameters=subject.parameters,
        multiply_adds=subject.multiply_adds,
        network_input=subject.network_input,
        detections=sum(subject.detections) / len(subject.detections),
        stage_ms={name: Spread.of([seconds[name] * 1e3 for seconds in stages]) for name in STAGES},
        detect_ms=detect_ms,
        images_per_second=per_second,
        operations_per_second=2 * subject.multiply_adds["total"] * per_second,
        test_memory=subject.test_memory,
    )


def _energy(subject: Subject) -> tuple[float | None, str]:
    joule, source = energy_meter(subject.device)
    if joule is None:
        return None, source
    try:
        frames, start, before = 0, time.perf_counter(), joule()
        while time.perf_counter() - start < ENERGY_SECONDS:
            subject.detect(frames, by_stage=False)
            frames += 1
        return (joule() - before) / frames, source
    except EnergyReadError as error:
        return None, str(error)


def _training(subject: Subject, batch_size: int) -> tuple[int | None, Spread]:
    memory = MemoryMeter(subject.device)
    memory.start()
    step = subject.training_step(batch_size)
    step()  # the first step allocates the state of the optimizer
    times = []
    for _ in range(TRAINING_STEPS):
        start = time.perf_counter()
        step()
        synchronize(subject.device)
        times.append((time.perf_counter() - start) * 1e3)
    return memory.peak(), Spread.of(times)
