import os
import pickle

import pytest
import torch

from maskrcnn_benchmark.evaluation.predictions import load_predictions, numbered, save_predictions
from maskrcnn_benchmark.structures.bounding_box import BoxList
from maskrcnn_benchmark.structures.keypoint import PersonKeypoints


def _assert_same(a, b):
    assert (a.size, a.mode, a.fields()) == (b.size, b.mode, b.fields())
    assert torch.equal(a.bbox, b.bbox)
    assert all(torch.equal(a.get_field(name), b.get_field(name)) for name in a.fields())


def test_round_trip(tmp_path, boxlist):
    predictions = [boxlist((40, 30), [((1.25, 2, 3, 4), 2, 0.5)]), None, boxlist((10, 10), [])]
    save_predictions(predictions, tmp_path / "predictions.pth")
    loaded = load_predictions(tmp_path / "predictions.pth")
    assert loaded[1] is None and len(loaded) == 3
    _assert_same(loaded[0], predictions[0])
    _assert_same(loaded[2], predictions[2])


def test_old_scripts_read_the_file_as_a_list_of_boxlists(tmp_path, boxlist):
    save_predictions([boxlist((40, 30), [((1, 2, 3, 4), 2, 0.5)])], tmp_path / "predictions.pth")
    (loaded,) = torch.load(tmp_path / "predictions.pth", weights_only=False)
    assert type(loaded) is BoxList and loaded.get_field("labels").tolist() == [2]


def test_files_of_the_older_format_and_of_fcos_core_are_read(tmp_path, boxlist):
    prediction = boxlist((40, 30), [((1, 2, 3, 4), 2, 0.5)])
    path = tmp_path / "predictions.pth"
    torch.save([prediction], path, _use_new_zipfile_serialization=False)
    # the same pickle with another package name
    content = path.read_bytes()
    path.write_bytes(content.replace(b"cmaskrcnn_benchmark.structures", b"cfcos_core.structures"))
    assert path.read_bytes() != content
    _assert_same(load_predictions(path)[0], prediction)


def test_views_are_saved_without_their_base(tmp_path):
    everything = torch.zeros(100_000, 4)
    view = BoxList(everything[:3], (10, 10))
    view.add_field("scores", everything[:3, 0])
    save_predictions([view], tmp_path / "predictions.pth")
    assert os.path.getsize(tmp_path / "predictions.pth") < 20_000


def test_masks_and_keypoints_round_trip(tmp_path, boxlist):
    prediction = boxlist((40, 30), [((1, 2, 3, 4), 1, 0.5)])
    prediction.add_field("mask", torch.rand(1, 1, 28, 28))
    keypoints = PersonKeypoints(torch.rand(50_000, 17, 3)[:1], (40, 30))
    keypoints.add_field("logits", torch.rand(1, 17))
    prediction.add_field("keypoints", keypoints)
    save_predictions([prediction], tmp_path / "predictions.pth")
    assert os.path.getsize(tmp_path / "predictions.pth") < 20_000
    (loaded,) = load_predictions(tmp_path / "predictions.pth")
    assert torch.equal(loaded.get_field("mask"), prediction.get_field("mask"))
    found = loaded.resize((80, 60)).get_field("keypoints")
    assert type(found) is PersonKeypoints and torch.equal(found.get_field("logits"), keypoints.get_field("logits"))
    assert torch.equal(found.keypoints[..., :2], keypoints.keypoints[..., :2] * 2)


def test_keypoints_of_the_forks_get_the_default_flip_indices(tmp_path, boxlist):
    prediction = boxlist((40, 30), [((1, 2, 3, 4), 1, 0.5)])
    keypoints = PersonKeypoints(torch.rand(1, 17, 3) + 1, (40, 30))
    del keypoints.flip_inds
    prediction.add_field("keypoints", keypoints)
    torch.save([prediction], tmp_path / "predictions.pth")
    (loaded,) = load_predictions(tmp_path / "predictions.pth")
    assert torch.equal(
        loaded.get_field("keypoints").transpose(0).keypoints,
        PersonKeypoints(keypoints.keypoints, (40, 30)).transpose(0).keypoints,
    )


def test_other_classes_are_refused_and_nothing_runs(tmp_path):
    class Hostile:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "was_here"),)

    (tmp_path / "predictions.pth").write_bytes(pickle.dumps([Hostile()]))
    with pytest.raises(ValueError, match="refused"):
        load_predictions(tmp_path / "predictions.pth")
    assert not (tmp_path / "was_here").exists()


def test_a_file_with_other_content_is_named(tmp_path):
    torch.save({"model": torch.zeros(1)}, tmp_path / "model.pth")
    with pytest.raises(ValueError, match=r"model\.pth does not hold a list of BoxList"):
        load_predictions(tmp_path / "model.pth")


def test_lists_and_mappings_are_numbered_alike(boxlist):
    a, b = boxlist((9, 9), []), boxlist((8, 8), [])
    assert list(numbered([a, None, b])) == list(numbered({2: b, 0: a})) == [(0, a), (2, b)]
