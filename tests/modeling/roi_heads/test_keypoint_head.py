import numpy as np
import pytest
import torch

from maskrcnn_benchmark.modeling.balanced_positive_negative_sampler import BalancedPositiveNegativeSampler
from maskrcnn_benchmark.modeling.matcher import Matcher
from maskrcnn_benchmark.modeling.roi_heads.keypoint_head.inference import Keypointer, KeypointPostProcessor
from maskrcnn_benchmark.modeling.roi_heads.keypoint_head.loss import KeypointRCNNLoss
from maskrcnn_benchmark.structures.bounding_box import BoxList
from maskrcnn_benchmark.structures.keypoint import PersonKeypoints

SIZE = (100, 80)


def make_loss(batch=1000):
    return KeypointRCNNLoss(Matcher(0.5, 0.5), BalancedPositiveNegativeSampler(batch, 1.0), 8)


def target(boxes, keypoints):
    """Take one (x, y, visibility) per object, for the nose; all other keypoints are invisible."""
    boxlist = BoxList(boxes, SIZE)
    points = torch.zeros(len(boxes), 17, 3)
    if boxes:
        points[:, 0] = torch.tensor(keypoints)
    boxlist.add_field("labels", torch.ones(len(boxes), dtype=torch.int64))
    boxlist.add_field("keypoints", PersonKeypoints(points, SIZE))
    return boxlist


def test_only_regions_with_a_visible_keypoint_inside_the_box_are_sampled():
    truth = target(
        [[10.0, 10, 29, 29], [40, 10, 59, 29], [70, 10, 89, 29], [10, 50, 29, 69]],
        [(29.0, 29.0, 1.0), (45.0, 15.0, 0.0), (60.0, 15.0, 2.0), (10.0, 50.0, 2.0)],
    )
    proposals = BoxList([[0.0, 0, 5, 5], [11, 10, 30, 29], [40, 10, 59, 29], [70, 10, 89, 29], [10, 50, 29, 69]], SIZE)
    (drawn,) = make_loss().subsample([proposals], [truth])
    assert drawn.bbox.tolist() == [[11, 10, 30, 29], [10, 50, 29, 69]]
    assert drawn.get_field("keypoints_target")[:, 0].tolist() == [[29, 29, 1], [10, 50, 2]]


def test_loss_is_the_mean_cross_entropy_over_visible_keypoints(rng_seed):
    truth = target([[10.0, 10, 26, 26], [40, 10, 56, 26]], [(11.0, 13.0, 1.0), (56.0, 26.0, 2.0)])
    loss = make_loss()
    drawn = loss.subsample([BoxList([[10.0, 10, 26, 26], [40, 10, 56, 26]], SIZE)], [truth])
    logits = torch.randn(2, 17, 8, 8)
    # 16 pixels wide, 8 bins: (1, 3) is in column 0, row 1; the lower right corner in the last bin
    expected = -(logits[0, 0].flatten().log_softmax(0)[8] + logits[1, 0].flatten().log_softmax(0)[63]) / 2
    assert loss(drawn, logits).item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("boxes", [[], [[10.0, 10, 29, 29]]], ids=["no object", "no visible keypoint"])
def test_loss_without_keypoints_keeps_the_graph(boxes):
    loss = make_loss()
    drawn = loss.subsample([BoxList([[10.0, 10, 29, 29]], SIZE)], [target(boxes, [(0.0, 0.0, 0.0)])])
    assert len(drawn[0]) == 0
    logits = torch.zeros(0, 17, 8, 8, requires_grad=True)
    found = loss(drawn, logits)
    found.backward()
    assert found == 0 and logits.grad is not None


def test_images_with_and_without_objects_share_a_batch(rng_seed):
    loss = make_loss()
    truth = [target([], []), target([[10.0, 10, 29, 29]], [(11.0, 13.0, 1.0)])]
    drawn = loss.subsample([BoxList([[10.0, 10, 29, 29]], SIZE)] * 2, truth)
    assert [len(regions) for regions in drawn] == [0, 1]
    assert loss(drawn, torch.randn(1, 17, 8, 8)).isfinite()


def test_ground_truth_without_keypoints_is_refused():
    truth = target([[10.0, 10, 29, 29]], [(11.0, 13.0, 1.0)]).copy_with_fields("labels")
    with pytest.raises(ValueError, match="no keypoints, only"):
        make_loss().subsample([BoxList([[10.0, 10, 29, 29]], SIZE)], [truth])


def test_keypoints_equal_the_originals(units):
    case = units["heatmaps_to_keypoints"]
    maps = torch.from_numpy(np.random.RandomState(6).standard_normal((2, 17, 56, 56)).astype(np.float32))
    points, logits = Keypointer()(maps, BoxList(case["rois"], SIZE))
    np.testing.assert_allclose(points.numpy(), case["xy1"], rtol=1e-5)
    np.testing.assert_allclose(logits.numpy(), case["scores"], rtol=1e-4)


def test_keypoints_of_several_images(rng_seed):
    boxes = [BoxList([[0.0, 0, 9, 9]], SIZE), BoxList(torch.zeros(0, 4), SIZE), BoxList([[20.0, 20, 40, 60]], SIZE)]
    maps = torch.randn(2, 17, 8, 8)
    found = KeypointPostProcessor(Keypointer())(maps, boxes)
    keypoints = [boxlist.get_field("keypoints") for boxlist in found]
    assert [tuple(k.keypoints.shape) for k in keypoints] == [(1, 17, 3), (0, 17, 3), (1, 17, 3)]
    assert [tuple(k.get_field("logits").shape) for k in keypoints] == [(1, 17), (0, 17), (1, 17)]
    x, y, one = keypoints[2].keypoints[0].unbind(dim=1)
    assert (x > 20).all() and (x < 40).all() and (y > 20).all() and (y < 60).all() and (one == 1).all()
