"""Track the objects of a video: each object keeps its number from frame to frame.

The boxes of a frame are matched with the positions that a Kalman filter predicts for the tracks (SORT, Bewley et al.,
ICIP 2016), in two passes (ByteTrack, Zhang et al., ECCV 2022). The first pass matches boxes with high scores. The
second matches boxes with low scores, which may only continue a track that was seen in the previous frame. So an object
that is partly hidden keeps its number.

Shapes: N detections of a frame, T tracks.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from maskrcnn_benchmark.engine.assignment import best_pairs
from maskrcnn_benchmark.structures.box_arrays import pairwise_iou

# Standard deviations of a measurement, and of the change of velocity per frame, relative to the side of the box.
MEASURED = 0.05
CHANGED = 0.01
# Standard deviation of the unknown velocity of a new track, in sides per frame.
NEW_VELOCITY = 0.2


class Tracker:
    """Tracker of the objects of one video.

    Args:
        high: minimum score of a detection that can start a track. These detections are matched first.
        low: minimum score of a detection that can continue a track.
        min_iou: minimum IoU of a detection with high score and the predicted box of its track.
        low_min_iou: minimum IoU of a detection with low score and the predicted box of its track.
        patience: number of frames after which an unmatched track is dropped.
        same_class: match a track only with detections of its class.

    Raises:
        ValueError: not 0 <= low <= high <= 1, or patience is negative.
    """

    def __init__(
        self,
        high: float = 0.5,
        low: float = 0.1,
        min_iou: float = 0.2,
        low_min_iou: float = 0.5,
        patience: float = 30,
        same_class: bool = True,
    ):
        if not 0 <= low <= high <= 1:
            raise ValueError(f"Tracker requires 0 <= low <= high <= 1, got low {low} and high {high}")
        if patience < 0:
            raise ValueError(f"patience must be a number of frames, 0 or more, got {patience}")
        self.high, self.low, self.patience, self.same_class = high, low, patience, same_class
        self.min_iou, self.low_min_iou = min_iou, low_min_iou
        self.reset()

    def reset(self) -> None:
        """Drop all tracks, as at the start of a video."""
        self._numbered = 0
        self._first_frame = True
        self._ids = np.zeros(0, dtype=np.int64)  # 0: seen once, not numbered yet
        self._labels = np.zeros(0, dtype=np.int64)
        self._lost = np.zeros(0)  # frames since the last match
        self._motion = BoxMotion()

    @property
    def count(self) -> int:
        """Number of objects tracked so far."""
        return self._numbered

    def update(self, boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray | None = None, frames: float = 1):
        """Match the detections of the next frame.

        Args:
            boxes: (N, 4) x1, y1, x2, y2 in pixels.
            scores: (N,).
            labels: (N,); None is a single class.
            frames: number of frames since the last update; more than 1 if frames were dropped.

        Returns:
            (N,) int64 object numbers from 1. Detections without a number get 0: their score is low, or their track is
            new. A track gets its number at its second detection; tracks of the first frame get it at once.

        Raises:
            ValueError: shapes differ, or boxes are not finite.
        """
        boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
        scores = np.asarray(scores, dtype=np.float64).reshape(-1)
        labels = np.zeros(len(boxes), dtype=np.int64) if labels is None else np.asarray(labels).reshape(-1)
        if not len(boxes) == len(scores) == len(labels):
            raise ValueError(f"got {len(boxes)} boxes, {len(scores)} scores and {len(labels)} labels")
        if not np.isfinite(boxes).all():
            raise ValueError(f"boxes must be finite, got {boxes[~np.isfinite(boxes).all(axis=1)][0].tolist()}")
        # boxes with a side of 0 have IoU 0 even with themselves, so sides are at least a pixel
        boxes = np.concatenate((boxes[:, :2], np.maximum(boxes[:, 2:], boxes[:, :2] + 1)), axis=1)
        self._motion.predict(frames, self._lost > 0)
        overlaps = pairwise_iou(self._motion.boxes(), boxes)
        if self.same_class:
            overlaps = np.where(self._labels[:, None] == labels, overlaps, 0)
        track_of = np.full(len(boxes), -1)
        confirmed = self._ids > 0
        is_high = scores >= self.high
        is_low = (scores >= self.low) & ~is_high
        for tracks, detections, least in (
            (confirmed, is_high, self.min_iou),
            (confirmed & (self._lost == 0), is_low, self.low_min_iou),
            (~confirmed, is_high, self.min_iou),
        ):
            rows = np.flatnonzero(tracks & ~np.isin(np.arange(len(tracks)), track_of))
            columns = np.flatnonzero(detections & (track_of < 0))
            possible = overlaps[np.ix_(rows, columns)]
            pairs = best_pairs(np.where(possible >= least, possible, 0))
            track_of[columns[pairs[:, 1]]] = rows[pairs[:, 0]]
        return self._advance(boxes, labels, track_of, is_high, frames)

    def follow(self, boxes, scores, labels=None, frames: float = 1, least: float | None = None):
        """Match the detections of the next frame, and select those to draw.

        Args:
            boxes, scores, labels, frames: see `update`.
            least: minimum score of a drawn detection without a number; None is `high`.

        Returns:
            Object numbers (N,) int64, and the indices of the detections to draw in descending order of scores. These
            are all detections with a number, and others with a score of at least `least`.
        """
        ids = self.update(boxes, scores, labels, frames)
        scores = np.asarray(scores, dtype=np.float64)
        shown = np.flatnonzero((ids > 0) | (scores >= (self.high if least is None else least)))
        return ids, shown[np.argsort(-scores[shown], kind="stable")]

    def _advance(self, boxes, labels, track_of, is_high, frames) -> np.ndarray:
        """Update matched tracks, number those matched for the second time, start new ones and drop lost ones."""
        found = np.flatnonzero(track_of >= 0)
        seen = track_of[found]
        self._motion.correct(seen, boxes[found])
        self._labels[seen] = labels[found]
        self._lost += frames
        self._lost[seen] = 0
        self._number(seen[self._ids[seen] == 0])
        ids = np.zeros(len(boxes), dtype=np.int64)
        ids[found] = self._ids[seen]

        kept = np.where(self._ids > 0, self._lost <= self.patience, self._lost == 0)
        new = np.flatnonzero(is_high & (track_of < 0))
        self._ids = np.concatenate((self._ids[kept], np.zeros(len(new), dtype=np.int64)))
        self._labels = np.concatenate((self._labels[kept], labels[new]))
        self._lost = np.concatenate((self._lost[kept], np.zeros(len(new))))
        self._motion.keep(kept)
        self._motion.add(boxes[new])
        if self._first_frame:
            self._number(np.arange(len(new)))
            ids[new] = self._ids
        self._first_frame = False
        return ids

    def _number(self, tracks: np.ndarray) -> None:
        self._ids[tracks] = self._numbered + 1 + np.arange(len(tracks))
        self._numbered += len(tracks)


class VideoTracks:
    """Tracking of several videos, one after the other, for the argument `track` of `predict_many`.

    Args:
        videos: names of the videos; a frame is named VIDEO/NUMBER.
        tracker: Tracker.
        frames: number of frames from one prediction to the next.
    """

    def __init__(self, videos, tracker: Tracker, frames: float = 1):
        self.videos, self.tracker, self.frames = frozenset(videos), tracker, frames
        self._video = None

    def __call__(self, prediction, name: str):
        """Set `track_ids` of the prediction of a frame; predictions of images are returned unchanged."""
        video = name.rpartition("/")[0]
        if video not in self.videos:
            return prediction
        if video != self._video:
            self._video = video
            self.tracker.reset()
        ids = self.tracker.update(prediction.boxes, prediction.scores, prediction.labels, self.frames)
        return replace(prediction, track_ids=ids)


class BoxMotion:
    """Kalman filters of T boxes: centre x, centre y, width and height, each with constant velocity."""

    def __init__(self):
        self.state = np.zeros((0, 4, 2))  # value in pixels, velocity in pixels per frame
        self.covariance = np.zeros((0, 4, 2, 2))

    def boxes(self) -> np.ndarray:
        """Return the predicted boxes, (T, 4) x1, y1, x2, y2."""
        centers, sides = self.state[:, :2, 0], self._sides()[:, 2:]
        return np.concatenate((centers - sides / 2, centers + sides / 2), axis=1)

    def predict(self, frames: float, keep_size: np.ndarray) -> None:
        """Predict the boxes some frames ahead; where keep_size (T,) bool is True, width and height stay constant."""
        self.state[keep_size, 2:, 1] = 0
        step = np.array(((1, frames), (0, 1)))
        # random changes of velocity, integrated over the frames
        noise = np.array(((frames**3 / 3, frames**2 / 2), (frames**2 / 2, frames)))
        self.state = self.state @ step.T
        self.covariance = step @ self.covariance @ step.T
        self.covariance += (CHANGED * self._sides())[..., None, None] ** 2 * noise

    def correct(self, tracks: np.ndarray, boxes: np.ndarray) -> None:
        """Update tracks (M,) with their measured boxes (M, 4)."""
        covariance = self.covariance[tracks]
        noise = (MEASURED * self._sides()[tracks]) ** 2
        kalman_gain = covariance[..., 0] / (covariance[..., 0, 0] + noise)[..., None]
        surprise = _measured(boxes) - self.state[tracks, :, 0]
        self.state[tracks] += kalman_gain * surprise[..., None]
        self.covariance[tracks] = covariance - kalman_gain[..., None] * covariance[..., :1, :]

    def keep(self, tracks: np.ndarray) -> None:
        """Keep the boxes where tracks (T,) bool is True, and drop the others."""
        self.state, self.covariance = self.state[tracks], self.covariance[tracks]

    def add(self, boxes: np.ndarray) -> None:
        """Add filters for new boxes (M, 4)."""
        values = _measured(boxes)
        state = np.stack((values, np.zeros_like(values)), axis=2)
        covariance = np.zeros((len(boxes), 4, 2, 2))
        sides = np.maximum(np.tile(values[:, 2:], 2), 1)
        covariance[..., 0, 0], covariance[..., 1, 1] = (MEASURED * sides) ** 2, (NEW_VELOCITY * sides) ** 2
        self.state = np.concatenate((self.state, state))
        self.covariance = np.concatenate((self.covariance, covariance))

    def _sides(self) -> np.ndarray:
        """Return (T, 4) width, height, width, height, each at least one pixel."""
        return np.maximum(np.tile(self.state[:, 2:, 0], 2), 1)


def _measured(boxes: np.ndarray) -> np.ndarray:
    """Convert corners (M, 4) to centre x, centre y, width, height."""
    return np.concatenate(((boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]), axis=1)
