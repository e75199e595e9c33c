import numpy as np
import pytest

from maskrcnn_benchmark.evaluation.semantic import SemanticConfusion


def confusion_of(*pairs, classes=4):
    confusion = SemanticConfusion(classes)
    for truth, found in pairs:
        confusion.add(np.asarray(truth, dtype=np.uint8), np.asarray(found, dtype=np.uint8))
    return confusion


def test_figures_by_hand():
    # class 3 occurs nowhere; class 2 is only predicted; pixels labelled 255 do not count
    confusion = confusion_of(([[0, 0, 0, 1]], [[0, 0, 2, 1]]), ([[1, 255, 255, 0]], [[0, 0, 1, 0]]))
    assert confusion.matrix[:3, :3].tolist() == [[3, 0, 1], [1, 1, 0], [0, 0, 0]]
    np.testing.assert_allclose(confusion.class_iou()[:2], [3 / 5, 1 / 2])
    assert np.isnan(confusion.class_iou()[2:]).all()
    figures = confusion.figures()
    assert figures["mIoU"] == pytest.approx((3 / 5 + 1 / 2) / 2)
    assert figures["fwIoU"] == pytest.approx((4 * 3 / 5 + 2 * 1 / 2) / 6)
    assert figures["mACC"] == pytest.approx((3 / 4 + 1 / 2) / 2)
    assert figures["pACC"] == pytest.approx(4 / 6)


def test_random_maps_agree_with_sets_of_pixels(rng_seed):
    truth, found = np.random.randint(0, 5, (2, 40, 30))
    truth[np.random.rand(40, 30) < 0.1] = 255
    confusion = confusion_of((truth, found), classes=5)
    counted = truth != 255
    for label in range(5):
        both = ((truth == label) & (found == label)).sum()
        either = (((truth == label) | (found == label)) & counted).sum()
        assert confusion.class_iou()[label] == pytest.approx(both / either)
    assert confusion.figures()["mIoU"] == pytest.approx(confusion.class_iou().mean())


def test_a_map_against_itself_is_perfect_and_nothing_is_not_computed(rng_seed):
    truth = np.random.randint(0, 4, (20, 20))
    assert set(confusion_of((truth, truth)).figures().values()) == {1.0}
    assert set(confusion_of((np.full((2, 2), 255), np.zeros((2, 2)))).figures().values()) == {-1.0}


def test_protocol_iou_counts_absent_classes_as_zero():
    # intersections, unions and the mean in per cent of a VoVNet-DeepLabV3 golden
    inter = {0: 70, 4: 352, 15: 3654, 18: 1680}
    union = [8562, 6048, 6048, 5664, 7027, 5568, 5602, 5536, 6494, 5600, 5536, 7681, 5024, 4992, 4992, 60281, 5120]
    union += [5120, 45515, 11182, 5120]
    confusion = SemanticConfusion(21)
    for k, count in enumerate(union):
        confusion.matrix[k, k] = inter.get(k, 0)
        confusion.missed[k] = count - inter.get(k, 0)
    assert 100 * confusion.protocol_iou().mean() == pytest.approx(0.7418818250967013, rel=1e-12)
    confusion = confusion_of(([[0, 1]], [[0, 1]]))  # classes 2 and 3 occur nowhere
    assert confusion.protocol_iou().mean() == pytest.approx(0.5) and confusion.figures()["mIoU"] == 1


def test_large_maps_are_counted_in_parts(rng_seed, monkeypatch):
    monkeypatch.setattr("maskrcnn_benchmark.evaluation.semantic.CHUNK", 7)
    truth, found = np.random.randint(0, 4, (2, 10, 11))
    truth[0] = 255
    expected = np.zeros((4, 4), dtype=int)
    np.add.at(expected, (truth[1:].reshape(-1), found[1:].reshape(-1)), 1)
    assert (confusion_of((truth, found)).matrix == expected).all()


def test_unknown_classes_and_other_sizes_are_refused():
    with pytest.raises(ValueError, match="the prediction has class 4, but there are 4 classes"):
        confusion_of(([[0]], [[4]]))
    with pytest.raises(ValueError, match="the ground truth has class 9"):
        confusion_of(([[9]], [[0]]))
    with pytest.raises(ValueError, match="height, width"):
        confusion_of(([[0, 1]], [[0]]))
