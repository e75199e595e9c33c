"""Predict OpenCV images and draw the detections, for programs written for the demos of maskrcnn-benchmark and FCOS.

    from predictor import COCODemo

    demo = COCODemo(cfg, confidence_threshold=0.7)
    drawn = demo.run_on_opencv_image(cv2.imread("street.jpg"))

New programs should use maskrcnn_benchmark.Predictor, on which this class is built.

Shapes: N objects of an image, K classes. Images are (H, W, 3) uint8 BGR, as OpenCV reads them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import numpy as np
import torch
from PIL import Image

from maskrcnn_benchmark.checkpoint.checkpointer import Checkpointer
from maskrcnn_benchmark.data.published_classes import COCO_THINGS
from maskrcnn_benchmark.engine.prediction import Prediction
from maskrcnn_benchmark.engine.predictor import Predictor
from maskrcnn_benchmark.engine.tracking import Tracker
from maskrcnn_benchmark.modeling.roi_heads.mask_head.inference import Masker
from maskrcnn_benchmark.structures.bounding_box import BoxList
from maskrcnn_benchmark.visual.drawing import draw_frames, draw_masks, draw_tags, tag_texts
from maskrcnn_benchmark.visual.keypoints import draw_keypoints
from maskrcnn_benchmark.visual.palette import label_colors

# Sizes of the network input if thresholds are given by class: FCOS's demo does not limit the long side.
FCOS_MIN_SIZE = 224
NO_MAXIMUM = 2**20


class COCODemo:
    """Predictor that draws the objects on OpenCV images.

    Args:
        cfg: config. The weights are those of OUTPUT_DIR/last_checkpoint if it exists, otherwise MODEL.WEIGHT.
        confidence_threshold: only objects with a higher score are drawn. FCOS's demo passes one number per class here.
        show_mask_heatmaps: draw a grid of mask probabilities instead of the objects.
        masks_per_dim: rows and columns of this grid.
        min_image_size: short side of the network input; None is INPUT.MIN_SIZE_TEST. With one threshold per class, the
            default is 224 and INPUT.MAX_SIZE_TEST is ignored, as in FCOS's demo.
        weight_loading: weights that override MODEL.WEIGHT.
        confidence_thresholds_for_classes: K thresholds by class.
        predictor: Predictor to use instead of `cfg`.
        tracker: Tracker that numbers the objects; the images must be the frames of a video.

    Attributes:
        CATEGORIES: class names by label, "__background" first. The names in the checkpoint replace COCO's names. The
            names of a subclass are kept.

    Raises:
        ValueError: show_mask_heatmaps for a model without masks, or not one threshold per class.
    """

    CATEGORIES = ["__background", *COCO_THINGS.values()]

    def __init__(
        self,
        cfg=None,
        confidence_threshold: float | Sequence[float] = 0.7,
        show_mask_heatmaps: bool = False,
        masks_per_dim: int = 2,
        min_image_size: int | None = None,
        weight_loading: str | None = None,
        *,
        confidence_thresholds_for_classes: Sequence[float] | None = None,
        predictor: Predictor | None = None,
        tracker: Tracker | None = None,
    ):
        if masks_per_dim < 1:
            raise ValueError(f"masks_per_dim must be at least 1, got {masks_per_dim}")
        if confidence_thresholds_for_classes is None and np.ndim(confidence_threshold):
            confidence_thresholds_for_classes = confidence_threshold
        by_class = confidence_thresholds_for_classes is not None
        if predictor is None:
            sizes = ["INPUT.MAX_SIZE_TEST", NO_MAXIMUM] if by_class else []
            if by_class or min_image_size is not None:
                sizes += ["INPUT.MIN_SIZE_TEST", min_image_size or FCOS_MIN_SIZE]
            latest = Checkpointer(None, save_dir=cfg.OUTPUT_DIR).get_checkpoint_file() if cfg.OUTPUT_DIR else None
            predictor = Predictor(cfg, weight_loading or latest or None, opts=sizes)
        self.cfg = None if cfg is None else cfg.clone()
        self.predictor, self.tracker = predictor, tracker
        self.model, self.device = predictor.setup.model, predictor.device
        self.cpu_device = torch.device("cpu")
        self.min_image_size = min_image_size
        names = predictor.class_names
        nameless_coco = len(names) == len(COCO_THINGS) and names[0] == "class 1"
        if type(self).CATEGORIES is COCODemo.CATEGORIES and not nameless_coco:
            self.CATEGORIES = ["__background", *names]
        self.confidence_threshold = 0.0 if by_class else confidence_threshold
        self.confidence_thresholds_for_classes = None
        if by_class:
            self.confidence_thresholds_for_classes = torch.as_tensor(confidence_thresholds_for_classes).float()
            if self.confidence_thresholds_for_classes.shape != (len(predictor.class_names),):
                raise ValueError(
                    f"confidence_thresholds_for_classes has {len(self.confidence_thresholds_for_classes)} numbers, but "
                    f"the model has {len(predictor.class_names)} classes: pass one number per class"
                )
        self.show_mask_heatmaps, self.masks_per_dim = show_mask_heatmaps, masks_per_dim
        pasting = predictor.setup.mask_pasting
        self.masker = Masker(-1 if show_mask_heatmaps else 0.5, pasting.padding, pasting.aligned)
        self.transforms = self.build_transform()

    def build_transform(self) -> Callable[[np.ndarray], torch.Tensor]:
        """Return a function that converts an image to the network input (3, H', W')."""
        transform = self.predictor.setup.transform
        return lambda image: transform(_to_pil(image))

    # ---- prediction

    def run_on_opencv_image(self, image: np.ndarray, frames: float = 1) -> np.ndarray:
        """Predict an image and return a copy with the detections drawn.

        Args:
            image: image to predict.
            frames: number of video frames since the last image, for the tracker.
        """
        predictions = self.compute_prediction(image)
        if self.tracker is None:
            top_predictions = self.select_top_predictions(predictions)
        else:
            top_predictions = self.select_tracked_predictions(predictions, frames)
        result = image.copy()
        if self.show_mask_heatmaps:
            return self.create_mask_montage(result, top_predictions)
        if top_predictions.has_field("panoptic") or top_predictions.has_field("semantic"):
            result = self.overlay_segments(result, top_predictions)
        if top_predictions.has_field("panoptic"):  # the segments include the objects
            return result
        if top_predictions.has_field("mask"):
            result = self.overlay_mask(result, top_predictions)
        result = self.overlay_boxes(result, top_predictions)
        if top_predictions.has_field("keypoints"):
            result = self.overlay_keypoints(result, top_predictions)
        return self.overlay_class_names(result, top_predictions)

    def compute_prediction(self, original_image: np.ndarray) -> BoxList:
        """Predict an image.

        Returns:
            BoxList on the CPU in pixels of the image, with the fields "labels" and "scores", and those that the model
            predicts of "mask" (N, 1, H, W) uint8, "keypoints", "semantic" and "panoptic".

        Raises:
            ValueError: the image is not (H, W, 3) uint8.
        """
        if original_image.ndim != 3 or original_image.shape[2] != 3 or original_image.dtype != np.uint8:
            raise ValueError(
                f"an OpenCV image must be (H, W, 3) uint8 BGR, got {original_image.shape} {original_image.dtype}"
            )
        setup = self.predictor.setup
        height, width = original_image.shape[:2]
        network_input = _to_pil(original_image) if setup.takes_originals else self.transforms(original_image)
        (output,) = setup.run([network_input], [(width, height)])
        prediction = output.resize((width, height)).convert("xyxy")
        if not prediction.has_field("scores"):  # proposals, and models without objects
            objectness = prediction.get_field("objectness") if prediction.has_field("objectness") else None
            prediction.add_field(
                "scores", prediction.bbox.new_zeros(len(prediction)) if objectness is None else objectness
            )
        if not prediction.has_field("labels"):
            prediction.add_field("labels", torch.ones(len(prediction), dtype=torch.int64))
        if prediction.has_field("mask"):
            (masks,) = self.masker([prediction.get_field("mask")], [prediction])
            prediction.add_field("mask", masks)
        elif self.show_mask_heatmaps:
            raise ValueError("show_mask_heatmaps requires a model with masks (MODEL.MASK_ON True); this one has none")
        return prediction

    def select_top_predictions(self, predictions: BoxList) -> BoxList:
        """Select predictions with a score above the threshold, in descending order of scores."""
        scores, thresholds = predictions.get_field("scores"), self.confidence_threshold
        if self.confidence_thresholds_for_classes is not None:
            thresholds = self.confidence_thresholds_for_classes[predictions.get_field("labels") - 1]
        predictions = predictions[torch.nonzero(scores > thresholds).squeeze(1)]
        return predictions[predictions.get_field("scores").argsort(descending=True, stable=True)]

    def select_tracked_predictions(self, predictions: BoxList, frames: float = 1) -> BoxList:
        """Track the predictions, and select those of tracked objects or above the threshold.

        Returns:
            BoxList with the field "track_ids", in descending order of scores.
        """
        predictions = predictions[torch.nonzero(torch.isfinite(predictions.bbox).all(dim=1)).squeeze(1)]
        ids, shown = self.tracker.follow(
            predictions.bbox.numpy(),
            predictions.get_field("scores").float().numpy(),
            predictions.get_field("labels").numpy(),
            frames,
        )
        predictions.add_field("track_ids", torch.from_numpy(ids))
        return predictions[torch.from_numpy(shown)]

    # ---- drawing: each method draws on the given image and returns it

    def compute_colors_for_labels(self, labels) -> np.ndarray:
        """Return the colours of labels (N,), as (N, 3) uint8 BGR."""
        return label_colors(np.asarray(labels))[:, ::-1]

    def overlay_boxes(self, image: np.ndarray, predictions: BoxList) -> np.ndarray:
        """Draw the boxes."""
        return self._draw(image, draw_frames, predictions.bbox.tolist(), self._rgb_colors(predictions))

    def overlay_mask(self, image: np.ndarray, predictions: BoxList) -> np.ndarray:
        """Tint and outline the masks."""
        # drawn in ascending order of scores, so that the best is on top
        masks, labels = predictions.get_field("mask")[:, 0].numpy()[::-1], predictions.get_field("labels").numpy()[::-1]
        return self._draw(image, draw_masks, masks, labels, self._rgb_colors(predictions)[::-1])

    def overlay_keypoints(self, image: np.ndarray, predictions: BoxList) -> np.ndarray:
        """Draw the keypoints, and the skeleton of persons."""
        keypoints = predictions.get_field("keypoints")
        scores = keypoints.get_field("logits").numpy() if keypoints.has_field("logits") else None
        return self._draw(image, draw_keypoints, keypoints.keypoints.numpy(), scores)

    def overlay_class_names(self, image: np.ndarray, predictions: BoxList) -> np.ndarray:
        """Write track number, class and score at the boxes."""
        names = list(self.CATEGORIES[1:])
        texts, short_texts = tag_texts(predictions, names)
        colors = self._rgb_colors(predictions)
        return self._draw(image, draw_tags, predictions.bbox.tolist(), texts, colors, short_texts, letters=names)

    def overlay_segments(self, image: np.ndarray, predictions: BoxList) -> np.ndarray:
        """Tint and name the segments of panoptic and semantic models."""
        maps = {name: predictions.get_field(name) for name in ("semantic", "panoptic") if predictions.has_field(name)}
        height, width = image.shape[:2]
        found = Prediction(
            size=(width, height),
            boxes=np.zeros((0, 4), dtype=np.float32),
            scores=np.zeros(0, dtype=np.float32),
            labels=np.zeros(0, dtype=np.int64),
            label_names=self.predictor.label_names,
            **maps,
        )
        return self._draw(image, found.draw)

    def create_mask_montage(self, image: np.ndarray, predictions: BoxList) -> np.ndarray:
        """Return heat maps of the first masks in a grid of masks_per_dim rows and columns, in about the image size."""
        height, width = (max(1, side // self.masks_per_dim) for side in image.shape[:2])
        grid = np.zeros((self.masks_per_dim * height, self.masks_per_dim * width), dtype=np.uint8)
        masks = predictions.get_field("mask")[: self.masks_per_dim**2, 0].numpy()
        for k, mask in enumerate(masks):
            row, column = divmod(k, self.masks_per_dim)
            small = cv2.resize(mask, (width, height), interpolation=cv2.INTER_AREA)
            grid[row * height : (row + 1) * height, column * width : (column + 1) * width] = small
        return cv2.applyColorMap(grid, cv2.COLORMAP_JET)

    def _rgb_colors(self, predictions: BoxList) -> np.ndarray:
        colors = np.asarray(self.compute_colors_for_labels(predictions.get_field("labels")))
        return colors.reshape(-1, 3)[:, ::-1].astype(np.uint8)

    @staticmethod
    def _draw(image: np.ndarray, draw: Callable, *args, **kwargs) -> np.ndarray:
        drawn = draw(np.ascontiguousarray(image[:, :, ::-1]), *args, **kwargs)[:, :, ::-1]
        if not image.flags.writeable:
            return np.ascontiguousarray(drawn)
        image[:] = drawn
        return image


def vis_keypoints(img: np.ndarray, kps: np.ndarray, kp_thresh: float = 2, alpha: float = 0.7) -> np.ndarray:
    """Draw the keypoints of one object on a copy of the image.

    Args:
        img: (H, W, 3) uint8.
        kps: (3, P) x, y and logits of P keypoints.
        kp_thresh: only keypoints with a higher logit are drawn.
        alpha: opacity, 0 to 1.
    """
    x, y, scores = np.asarray(kps, dtype=np.float32)
    points = np.stack((x, y, np.ones_like(x)), axis=1)[None]
    drawn = draw_keypoints(np.ascontiguousarray(img), points, scores[None], threshold=kp_thresh)
    return cv2.addWeighted(img, 1.0 - alpha, drawn, alpha, 0)


def _to_pil(image: np.ndarray) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(image[:, :, ::-1]))
