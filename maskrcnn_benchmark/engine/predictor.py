"""Predict images with a trained model.

    from maskrcnn_benchmark import Predictor

    predictor = Predictor.from_checkpoint("model_final.pth")   # or Predictor.from_zoo("digits_fcos")
    prediction = predictor("street.jpg")
    prediction.boxes, prediction.scores, prediction.names

Results equal those of tools/test_net.py with TEST.IMS_PER_BATCH 1: only images of the same size after resizing share a
batch, so no image is padded to the size of another.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import logging
import os
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from PIL import Image

from maskrcnn_benchmark.checkpoint.shipped import shipped_model
from maskrcnn_benchmark.data.transforms.transforms import to_pixels
from maskrcnn_benchmark.engine.batching import in_equal_batches
from maskrcnn_benchmark.engine.image_inputs import ImageReader, is_single, size_of
from maskrcnn_benchmark.engine.prediction import Prediction, label_of, thresholds_by_label
from maskrcnn_benchmark.engine.prediction_files import to_json
from maskrcnn_benchmark.engine.predictor_setup import PredictorSetup, config_with, make_setup
from maskrcnn_benchmark.engine.process import usable_cores
from maskrcnn_benchmark.engine.tiling import check_tiles, merge_windows, windows_of
from maskrcnn_benchmark.structures.bounding_box import BoxList
from maskrcnn_benchmark.structures.label_names import LabelNames
from maskrcnn_benchmark.structures.paste_masks import paste_rles

logger = logging.getLogger("maskrcnn_benchmark.predictor")

# Threads that decode and resize images while the model runs.
DECODERS = 2
DECODERS_OF_GPU = 8
# Images read ahead per image of a batch: batches stay full with up to this many alternating sizes.
AHEAD = 4


class Predictor:
    """Trained model with its preprocessing and post-processing, for images in any common form.

    Args:
        cfg: config, path of a YAML file, or None: use the config in the checkpoint.
        weights: checkpoint of this package or another, see DetectronCheckpointer; None uses MODEL.WEIGHT.
        opts: config overrides, a list KEY, VALUE, KEY, VALUE, ...
        device: "cpu", "cuda" or "cuda:N"; None uses MODEL.DEVICE, or the CPU if torch finds no GPU.
        dtype: "float32", "bfloat16", "float16" or "auto"; None uses DTYPE.
        class_names, category_ids: names and ids of labels 1..K; None reads them from the checkpoint.
        score_threshold: minimum score, or a mapping from class names to minimum scores; None keeps all detections.
        classes: names or labels of the classes to keep; None keeps all.
        batch_size: images of equal size per call of the model; None is 1 on a CPU and 8 on a GPU.
        decoders: threads that decode and resize images; None is 2 for a model on a CPU and up to 8 on a GPU.
        channel_order: "rgb" or "bgr": the order of arrays and tensors. A call can override it.
        tiles: side in pixels of the windows into which large images are cut; 0 predicts whole images.
        overlap: share of a window that overlaps with its neighbour.
        model: model in memory, instead of `weights`.
        setup: PredictorSetup in place of cfg, weights and model, such as that of an exported model.

    Attributes:
        label_names: LabelNames of the model.
        class_names: class names of the model.
        setup: PredictorSetup: the model, and how its input is prepared.
        images: number of images (or windows) predicted so far.
        model_seconds: time in the model so far.

    A predictor can be called from several threads; the model runs for one of them at a time.

    Raises:
        ValueError: config and weights do not match, or one of them is missing. The message says what to do.
        OSError: a file cannot be read.
    """

    def __init__(
        self,
        cfg=None,
        weights: str | os.PathLike | None = None,
        *,
        opts: Sequence = (),
        device: str | None = None,
        dtype: str | None = None,
        class_names: Sequence[str] | None = None,
        category_ids: Sequence | None = None,
        score_threshold: float | Mapping[str, float] | None = None,
        classes: Sequence | None = None,
        batch_size: int | None = None,
        decoders: int | None = None,
        channel_order: str | None = None,
        tiles: int = 0,
        overlap: float = 0.2,
        model: torch.nn.Module | None = None,
        setup: PredictorSetup | None = None,
    ):
        check_tiles(tiles, overlap)
        if batch_size is not None and batch_size < 1 or decoders is not None and decoders < 1:
            raise ValueError(f"batch_size and decoders must be at least 1, got {batch_size} and {decoders}")
        if setup is None:
            setup = make_setup(
                cfg, weights, list(opts), device, dtype, class_names, category_ids, model, tiles, overlap
            )
        self.setup = setup
        self.reader = ImageReader(self.setup.upright, self.setup.value_range, channel_order)
        self.label_names: LabelNames = self.setup.label_names
        if isinstance(score_threshold, Mapping):
            thresholds_by_label(score_threshold, self.class_names)  # raise now, not at the first image
        self.score_threshold = score_threshold
        self.kept_labels = None
        if classes is not None:
            self.kept_labels = torch.tensor([label_of(each, self.class_names) for each in classes])
        self.batch_size = batch_size or (1 if self.setup.device.type == "cpu" else 8)
        self.decoders = decoders or (DECODERS if self.device.type == "cpu" else min(usable_cores(), DECODERS_OF_GPU))
        # a SemanticSegmentor cuts windows itself
        self.tiles, self.overlap = 0 if self.setup.tiles_itself else tiles, overlap
        self.images = 0
        self.model_seconds = 0.0
        self._lock = threading.Lock()

    @classmethod
    def from_checkpoint(cls, path: str | os.PathLike, **options) -> Predictor:
        """Make a predictor from a checkpoint of tools/train_net.py, which has the config and the class names.

        Args:
            path: checkpoint such as model_final.pth. For a folder, the checkpoint named in its `last_checkpoint`.
            **options: see Predictor.

        Raises:
            ValueError: the file has no config; use Predictor(config_file, path).
        """
        return cls(None, path, **options)

    @classmethod
    def from_zoo(cls, name: str, **options) -> Predictor:
        """Make a predictor of a model that comes with the package; nothing is downloaded.

        Args:
            name: "digits_fcos" or "digits_mask_rcnn", see `checkpoint.shipped.shipped_models`.
            **options: see Predictor. score_threshold defaults to the one with the highest F1 on the model's test set;
                None keeps all detections.

        Raises:
            ValueError: there is no such model, or its file is damaged.
        """
        model = shipped_model(name)
        defaults = {key: getattr(model, key) for key in ("class_names", "category_ids", "score_threshold")}
        return cls(config_with(model.config), model.path, **{**defaults, **options})

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.label_names.class_names

    @property
    def box_offset(self) -> float:
        """Width of a box minus (x2 - x1), see BoxList."""
        return self.setup.box_offset

    @property
    def device(self) -> torch.device:
        return self.setup.device

    def __call__(self, images, *, channel_order: str | None = None):
        """Predict one image or several.

        Args:
            images: path, PIL image, array (H, W, 3), tensor (3, H, W) uint8 or float, or any iterable of these. For a
                dict of columns with "path" or "image", such as a batch of Ray Data, see `predict_columns`.
            channel_order: "rgb" or "bgr": the order of arrays and tensors.

        Returns:
            A Prediction for one image; a list of Predictions, in order, for several.

        Raises:
            OSError: a file is missing, is not an image, or cannot be decoded.
            ValueError: an array or tensor is not an image, or its channel order is unknown.
        """
        if isinstance(images, Mapping):
            return self.predict_columns(images, channel_order=channel_order)
        if is_single(images):
            (prediction,) = self._stream([images], channel_order, keep_images=True)
            if isinstance(prediction, Exception):
                raise prediction
            return prediction
        return list(self.stream(images, channel_order=channel_order))

    def stream(
        self,
        images: Iterable,
        *,
        channel_order: str | None = None,
        errors: str = "raise",
        keep_images: bool = False,
    ) -> Iterator:
        """Yield a Prediction for each image, in order. Only a few images are in memory at a time.

        Args:
            images: see `__call__`. A generator is consumed lazily.
            channel_order: "rgb" or "bgr": the order of arrays and tensors.
            errors: for images that cannot be read, "raise" the exception, or "yield" it (OSError, ValueError,
                TypeError) in place of the prediction.
            keep_images: keep each image in its prediction, so that draw() does not read the file again.
        """
        if errors not in ("raise", "yield"):
            raise ValueError(f"errors must be 'raise' or 'yield', got {errors!r}")
        for result in self._stream(images, channel_order, keep_images):
            if isinstance(result, Exception) and errors == "raise":
                raise result
            yield result

    def predict_columns(self, columns: Mapping, *, channel_order: str | None = None) -> dict:
        """Predict a table of images, such as a batch of Ray Data's map_batches.

        Args:
            columns: "path", or "image" with arrays, and any other columns.

        Returns:
            All columns except "image", and "prediction" with one JSON line per image, see `to_json`. The line of an
            image that cannot be read has only "error".

        Raises:
            ValueError: there is neither a column "path" nor "image".
        """
        source = next((name for name in ("image", "path") if name in columns), None)
        if source is None:
            raise ValueError(f"a batch requires a column 'path' or 'image', got {', '.join(map(str, columns))}")
        kept = {name: column for name, column in columns.items() if name != "image"}
        results = self.stream(columns[source], channel_order=channel_order, errors="yield")
        lines = [json.dumps({"error": str(each)} if isinstance(each, Exception) else to_json(each)) for each in results]
        return {**kept, "prediction": np.array(lines, dtype=object)}

    # ---- from images to predictions

    def _stream(self, images: Iterable, channel_order: str | None, keep_images: bool) -> Iterator:
        reader = self.reader
        if channel_order is not None:
            reader = dataclasses.replace(reader, channel_order=channel_order)
        prepare = _Prepare(self.setup, reader, keep_images)
        if self.tiles:
            prepare, run, batch_size, window = prepare.original, self._predict_by_windows, 1, self.decoders
        else:
            run, batch_size, window = self._predict, self.batch_size, self.batch_size * AHEAD + self.decoders
        with ThreadPoolExecutor(self.decoders, thread_name_prefix="decode") as executor:
            for result in in_equal_batches(images, prepare, _Prepared.key, run, executor, batch_size, window):
                if isinstance(result, Exception) and not isinstance(result, (OSError, ValueError, TypeError)):
                    raise result
                yield result

    def _predict_by_windows(self, batch: list[_Prepared]) -> list[Prediction]:
        """Predict one large image by windows, and merge their predictions."""
        (original,) = batch
        pixels = to_pixels(original.network_input)
        windows = windows_of(original.size, self.tiles, self.overlap)
        views = (pixels[:, top:bottom, left:right] for left, top, right, bottom in windows)
        if len(windows) > 1:
            views = itertools.chain(views, [pixels])
        reader = dataclasses.replace(self.reader, channel_order="rgb")
        prepare_whole = _Prepare(self.setup, reader, False)
        setup = dataclasses.replace(self.setup, transform=self.setup.window_transform or self.setup.transform)
        prepare_window = prepare_whole if len(windows) == 1 else _Prepare(setup, reader, False)

        def prepare(view):
            return prepare_whole(view) if view is pixels else prepare_window(view)

        ahead = self.batch_size + self.decoders
        with ThreadPoolExecutor(self.decoders, thread_name_prefix="window") as executor:
            found = list(
                in_equal_batches(views, prepare, _Prepared.key, self._predict, executor, self.batch_size, ahead)
            )
        error = next((each for each in found if isinstance(each, Exception)), None)
        if error is not None:
            raise error
        merged = found[0]
        if len(windows) > 1:
            merged = merge_windows(found[:-1], windows, original.size, found[-1])
        return [dataclasses.replace(merged, path=original.path, _image=original.image)]

    def _predict(self, batch: list[_Prepared]) -> list[Prediction]:
        with self._lock:
            start = time.perf_counter()
            outputs = self.setup.run([each.network_input for each in batch], [each.size for each in batch])
            self.model_seconds += time.perf_counter() - start
            self.images += len(batch)
        return [self._prediction(output, each) for output, each in zip(outputs, batch, strict=True)]

    def _prediction(self, output: BoxList, prepared: _Prepared) -> Prediction:
        setup = self.setup
        found = output.resize(prepared.size).convert("xyxy")
        scores = _field(found, "scores", "objectness")
        scores = found.bbox.new_zeros(len(found)) if scores is None else scores.float()
        labels = _field(found, "labels")
        labels = torch.ones(len(found), dtype=torch.int64) if labels is None else labels
        keypoints, mask_scores = _field(found, "keypoints"), _field(found, "mask_scores")
        usable = torch.isfinite(found.bbox).all(dim=1) & torch.isfinite(scores)
        if mask_scores is not None:
            usable &= torch.isfinite(mask_scores)
        if keypoints is not None:
            usable &= torch.isfinite(keypoints.keypoints).flatten(start_dim=1).all(dim=1)
        if not usable.all():
            logger.warning("%d detections with a non-finite box, score or keypoint were dropped", int((~usable).sum()))
        usable &= (found.convert("xywh").bbox[:, 2:] > 0).all(dim=1)
        usable &= self._wanted(scores, labels)
        best_first = scores.argsort(descending=True, stable=True)
        chosen = best_first[usable[best_first]]
        boxes, masks = found.bbox[chosen], _field(found, "mask")
        if masks is not None:
            masks = paste_rles(masks[chosen], boxes, prepared.size, pasting=setup.mask_pasting)
        return Prediction(
            size=prepared.size,
            boxes=boxes.numpy().copy(),
            scores=scores[chosen].numpy().copy(),
            labels=labels[chosen].numpy().copy(),
            label_names=self.label_names,
            masks=masks,
            mask_scores=None if mask_scores is None else mask_scores[chosen].float().numpy().copy(),
            keypoints=None if keypoints is None else keypoints.keypoints[chosen].numpy().copy(),
            keypoint_scores=None if keypoints is None else keypoints.get_field("logits")[chosen].numpy().copy(),
            semantic=_field(found, "semantic"),
            panoptic=_field(found, "panoptic"),
            path=prepared.path,
            box_offset=found.box_offset,
            upright=setup.upright,
            value_range=setup.value_range,
            _image=prepared.image,
        )

    def _wanted(self, scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        wanted = torch.ones(len(scores), dtype=torch.bool)
        if self.kept_labels is not None:
            wanted &= torch.isin(labels, self.kept_labels)
        if isinstance(self.score_threshold, Mapping):
            wanted &= scores >= torch.from_numpy(thresholds_by_label(self.score_threshold, self.class_names))[labels]
        elif self.score_threshold is not None:
            wanted &= scores >= self.score_threshold
        return wanted


@dataclasses.dataclass
class _Prepared:
    """An image ready for the model.

    Attributes:
        network_input: tensor (3, H, W), or the RGB image itself.
        size: (width, height) of the original image.
        path: file of the image, or None.
        image: the original image, or None if it is not kept.
    """

    network_input: torch.Tensor | Image.Image
    size: tuple[int, int]
    path: str | None
    image: Image.Image | torch.Tensor | None

    def key(self):
        """Return the size of the network input; only images of equal size share a batch."""
        shape = getattr(self.network_input, "shape", None)
        return self.network_input.size if shape is None else tuple(shape)


class _Prepare:
    """Read an image and convert it to the network input."""

    def __init__(self, setup: PredictorSetup, reader: ImageReader, keep_images: bool):
        self.setup, self.reader, self.keep_images = setup, reader, keep_images

    def __call__(self, given) -> _Prepared:
        prepared = self.original(given)
        if not self.setup.takes_originals:
            prepared.network_input = self.setup.transform(prepared.network_input)
        return prepared

    def original(self, given) -> _Prepared:
        """Read an image without converting it."""
        image = self.reader(given)
        path = os.fspath(given) if isinstance(given, (str, os.PathLike)) else None
        return _Prepared(image, size_of(image), path, image if self.keep_images else None)


def _field(boxlist: BoxList, *names: str):
    return next((boxlist.get_field(name) for name in names if boxlist.has_field(name)), None)
