import pytest

from maskrcnn_benchmark.checkpoint.key_tables import rename

ROWS = (
    ("stages.{s}.blocks.{b}.fc.", "stage{s+2}.OSA{s+2}_{b+1}.fc."),
    ("^conv1.", "stem.conv1."),
    ("/bn.", "/norm."),
    ("lateral{k}.", "inner{k-1}."),
    ("bottom_up.", "body."),
)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("stages.0.blocks.10.fc.weight", "stage2.OSA2_11.fc.weight"),
        ("conv1.weight", "stem.conv1.weight"),
        ("stem.stem_1/bn.bias", "stem.stem_1/norm.bias"),
        ("backbone.lateral10.weight", "backbone.inner9.weight"),
        ("backbone.bottom_up.x", "backbone.body.x"),
    ],
)
def test_a_row_renames_in_both_directions(theirs, ours):
    assert rename(theirs, ROWS) == ours
    assert rename(ours, ROWS, to_ours=False) == theirs


@pytest.mark.parametrize("key", ["layer1.0.conv1.weight", "my_bottom_up.x", "stages.a.blocks.0.fc.w", "", "other"])
def test_a_key_without_a_matching_row_is_not_changed(key):
    assert rename(key, ROWS) == key


def test_a_repeated_number_must_be_the_same():
    assert rename("stage3.OSA4_1.fc.w", ROWS, to_ours=False) == "stage3.OSA4_1.fc.w"


def test_the_first_matching_row_is_used():
    rows = (("head.norm.", "bn."), ("head.", "conv."))
    assert [rename(key, rows) for key in ("head.norm.w", "head.w")] == ["bn.w", "conv.w"]


def test_one_number_with_two_shifts_is_refused():
    with pytest.raises(ValueError, match="two shifts"):
        rename("a1.b1", (("a{i}.b{i+1}", "x"),))
