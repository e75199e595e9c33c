
import numpy as np
import pytest

from maskrcnn_benchmark.engine.tracking import BoxMotion, Tracker


def box(x, y, width=40, height=60):
    return [x - width / 2, y - height / 2, x + width / 2, y + height / 2]


def follow(frames, tracker=None, labels=None):
    """Track frames of {name: (box, score)}; return a dict {name: id} for each frame."""
    tracker = tracker or Tracker()
    found = []
    for frame in frames:
        names = sorted(frame)
        kinds = None if labels is None else [labels[name] for name in names]
        ids = tracker.update([frame[name][0] for name in names], [frame[name][1] for name in names], kinds)
        found.append(dict(zip(names, ids.tolist(), strict=True)))
    return found


def ids_of(found, name):
    return {frame[name] for frame in found if name in frame}


def test_crossing_objects_keep_their_ids():
    noise = np.random.default_rng(0).normal(0, 1.0, (60, 2, 4))
    frames = [
        {
            "left to right": (np.array(box(50 + 5 * t, 200)) + noise[t, 0], 0.9),
            "right to left": (np.array(box(350 - 5 * t, 205)) + noise[t, 1], 0.9),
        }
        for t in range(60)
    ]
    found = follow(frames)
    assert ids_of(found, "left to right") == {1} and ids_of(found, "right to left") == {2}


def test_object_hidden_while_crossing_keeps_its_id():
    frames = []
    for t in range(60):
        frame = {"front": (box(50 + 5 * t, 200), 0.9)}
        if abs(5 * t - 150) > 20:  # behind the other
            frame["behind"] = (box(350 - 5 * t, 200), 0.9)
        frames.append(frame)
    found = follow(frames)
    assert ids_of(found, "behind") == {1} and ids_of(found, "front") == {2}


@pytest.mark.parametrize("gap, ids", [(5, {1}), (30, {1}), (31, {0, 1, 2})])
def test_a_gap_ends_a_track_after_patience(gap, ids):
    frames = [{"a": (box(100 + t, 100), 0.9)} for t in range(10)]
    frames += [{}] * gap
    frames += [{"a": (box(110 + gap + t, 100), 0.9)} for t in range(5)]
    found = follow(frames)
    assert ids_of(found, "a") == ids
    assert found[9] == {"a": 1} and found[-1] == {"a": max(ids)}


def test_low_scores_continue_tracks_but_start_none():
    frames = [{"a": (box(100 + 3 * t, 100), 0.9 if t < 10 else 0.2), "b": (box(300, 100), 0.2)} for t in range(60)]
    found = follow(frames)
    assert ids_of(found, "a") == {1} and ids_of(found, "b") == {0}
    only_high = follow(frames, Tracker(low=0.5, high=0.5))
    assert ids_of(only_high, "a") == {0, 1} and only_high[10] == {"a": 0, "b": 0}


def test_a_low_score_does_not_revive_a_lost_object():
    frames = [{"a": (box(100, 100), 0.9)}] * 5 + [{}] * 3 + [{"a": (box(100, 100), 0.2)}] * 2
    assert [frame["a"] for frame in follow(frames) if frame] == [1] * 5 + [0] * 2


def test_a_false_detection_of_one_frame_takes_no_id():
    frames = [{"a": (box(100, 100), 0.9)} for _ in range(6)]
    frames[2] = frames[2] | {"false": (box(300, 300), 0.9)}
    frames[4] = frames[4] | {"new": (box(200, 300), 0.9)}
    frames[5] = frames[5] | {"new": (box(203, 300), 0.9)}
    found = follow(frames)
    assert ids_of(found, "a") == {1} and ids_of(found, "false") == {0}
    assert [frame["new"] for frame in found[4:]] == [0, 2]


def test_classes_are_not_confused_unless_allowed():
    frames = [{"cat": (box(100, 100), 0.9)}] * 3 + [{"dog": (box(100, 100), 0.9)}] * 3
    labels = {"cat": 1, "dog": 2}
    assert ids_of(follow(frames, labels=labels), "dog") == {0, 2}
    assert ids_of(follow(frames, Tracker(same_class=False), labels), "dog") == {1}


def test_motion_continues_over_dropped_frames():
    tracker, ids, before = Tracker(), [], -1
    for t in [*range(10), 13, 16, 20, 24]:
        ids += tracker.update([box(50 + 12 * t, 100)], [0.9], frames=t - before).tolist()
        before = t
    assert ids == [1] * 14


def test_empty_and_invalid_boxes():
    tracker = Tracker()
    assert tracker.update(np.zeros((0, 4)), []).shape == (0,)
    assert tracker.update([[5, 5, 5, 5], [9, 9, 1, 1]], [0.9, 0.9]).tolist() == [0, 0]
    with pytest.raises(ValueError, match="finite"):
        tracker.update([[0, 0, np.nan, 1]], [0.9])
    with pytest.raises(ValueError, match="1 boxes, 2 scores and 1 labels"):
        tracker.update([[0, 0, 1, 1]], [0.9, 0.9])
    with pytest.raises(ValueError, match="low 0.5 and high 0.3"):
        Tracker(high=0.3, low=0.5)


def test_boxes_without_area_are_tracked():
    frames = [{"line": ([10, 20, 10, 60], 0.9), "point": ([30, 30, 30, 30], 0.9)}] * 3
    assert follow(frames) == [{"line": 1, "point": 2}] * 3


def test_follow_selects_numbered_objects_and_high_scores():
    tracker = Tracker(high=0.5, low=0.1)
    assert [each.tolist() for each in tracker.follow([box(50, 50), box(200, 50)], [0.6, 0.3])] == [[1, 0], [0]]
    boxes = [box(50, 50), box(200, 50), box(300, 50)]
    ids, shown = tracker.follow(boxes, [0.2, 0.3, 0.8])
    assert ids.tolist() == [1, 0, 0] and shown.tolist() == [2, 0]


def test_reset_starts_a_new_video():
    tracker = Tracker()
    tracker.update([box(50, 50)], [0.9])
    assert tracker.count == 1
    tracker.reset()
    assert tracker.update([box(300, 50)], [0.9]).tolist() == [1] and tracker.count == 1


def test_motion_estimates_velocity_and_predicts_the_box():
    motion = BoxMotion()
    motion.add(np.array([box(100, 100)]))
    for t in range(1, 20):
        motion.predict(1, np.array([False]))
        motion.correct(np.array([0]), np.array([box(100 + 4 * t, 100 - 2 * t)]))
    assert motion.state[0, :2, 1] == pytest.approx([4, -2], abs=0.05)
    motion.predict(5, np.array([True]))
    assert motion.boxes()[0] == pytest.approx(box(100 + 4 * 24, 100 - 2 * 24), abs=1)


def test_filter_agrees_with_the_textbook_equations():
    motion = BoxMotion()
    motion.add(np.array([[0.0, 0, 20, 40]]))
    x, p = motion.state[0, 1].copy(), motion.covariance[0, 1].copy()
    motion.predict(1, np.array([False]))
    f, q = np.array([[1, 1], [0, 1]]), (0.01 * 40) ** 2 * np.array([[1 / 3, 1 / 2], [1 / 2, 1]])
    x, p = f @ x, f @ p @ f.T + q
    assert motion.state[0, 1] == pytest.approx(x) and motion.covariance[0, 1] == pytest.approx(p)
    motion.correct(np.array([0]), np.array([[0.0, 6, 20, 46]]))
    h, r = np.array([[1.0, 0]]), (0.05 * 40) ** 2
    k = p @ h.T / (h @ p @ h.T + r)
    x, p = x + (k * (26 - h @ x)).ravel(), (np.eye(2) - k @ h) @ p
    assert motion.state[0, 1] == pytest.approx(x) and motion.covariance[0, 1] == pytest.approx(p)


def test_a_crowd_keeps_its_ids():
    generator = np.random.default_rng(0)
    centers = np.stack(np.meshgrid(np.arange(10) * 100, np.arange(10) * 100), axis=-1).reshape(-1, 2) + 50.0
    velocities = generator.normal(0, 2, centers.shape)
    tracker, numbers = Tracker(), np.zeros((20, 100), dtype=np.int64)
    for t in range(20):
        order = generator.permutation(100)
        boxes = np.array([box(*center) for center in centers + t * velocities])
        numbers[t, order] = tracker.update(boxes[order], np.full(100, 0.9))
    assert (numbers == numbers[0]).all() and sorted(numbers[0]) == list(range(1, 101))
