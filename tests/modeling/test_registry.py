import pytest

from maskrcnn_benchmark.modeling import registry
from maskrcnn_benchmark.utils.registry import Registry


def test_register_decorator_returns_its_object_and_stacks():
    table = Registry()

    @table.register("one")
    @table.register("two")
    def builder():
        return "built"

    assert builder() == "built"
    assert table["one"] is table["two"] is builder


def test_register_with_a_module_stores_it():
    table = Registry({"first": 1})
    assert table.register("second", 2) == 2
    assert dict(table.items()) == {"first": 1, "second": 2} and len(table) == 2


def test_duplicate_name_is_refused_and_the_first_entry_is_kept():
    table = Registry(name=1)
    with pytest.raises(AssertionError, match="'name' is already registered"):
        table.register("name", 2)
    assert table["name"] == 1


def test_unknown_name_error_suggests_similar_names():
    table = Registry({"V-39-FPN": 1, "R-50-C4": 2})
    with pytest.raises(KeyError, match="did you mean V-39-FPN"):
        table["V-38-FPN"]
    assert "V-38-FPN" not in table and table.get("V-38-FPN") is None


def test_refused_name_has_a_reason_and_no_entry():
    table = Registry({"V-39-FPN": 1})
    table.refuse("FBNet", "no layers of it")
    with pytest.raises(KeyError, match="'FBNet' is not supported: no layers of it"):
        table["FBNet"]
    assert "FBNet" not in table and len(table) == 1


@pytest.mark.parametrize(
    ("table", "name"),
    [
        ("BACKBONES", "FBNet"),
        ("RPN_HEADS", "FBNet.rpn_head"),
        ("ROI_BOX_FEATURE_EXTRACTORS", "FBNet.roi_head"),
        ("ROI_KEYPOINT_FEATURE_EXTRACTORS", "FBNet.roi_head_keypoints"),
        ("ROI_MASK_FEATURE_EXTRACTORS", "FBNet.roi_head_mask"),
    ],
)
def test_fbnet_is_refused_with_an_alternative(table, name):
    with pytest.raises(KeyError, match=f"'{name}' is not supported: .*MNV2-FPN-RETINANET"):
        getattr(registry, table)[name]


def test_fork_registries_exist():
    for name in (
        "BACKBONES",
        "RPN_HEADS",
        "ROI_BOX_FEATURE_EXTRACTORS",
        "ROI_BOX_PREDICTOR",
        "ROI_KEYPOINT_FEATURE_EXTRACTORS",
        "ROI_KEYPOINT_PREDICTOR",
        "ROI_MASK_FEATURE_EXTRACTORS",
        "ROI_MASK_PREDICTOR",
    ):
        assert isinstance(getattr(registry, name), Registry)
