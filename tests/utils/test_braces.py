import pytest

from maskrcnn_benchmark.utils.braces import expand_braces


@pytest.mark.parametrize(
    "text, names",
    [
        ("a.tar", ["a.tar"]),
        ("s/{008..011}.tar", ["s/008.tar", "s/009.tar", "s/010.tar", "s/011.tar"]),
        ("{0..1}-{a,b}.tar", ["0-a.tar", "0-b.tar", "1-a.tar", "1-b.tar"]),
        ("{8..10}", ["8", "9", "10"]),
        ("{a}", ["a"]),
    ],
)
def test_braces_stand_for_names_in_order(text, names):
    assert expand_braces(text) == names


@pytest.mark.parametrize(
    "text, message",
    [
        ("{5..2}.tar", "is no range"),
        ("{0..99999999}.tar", "is no range"),
        ("{0..9999}{0..9999}", "stands for 100,000,000 names"),
        ("{0..2.tar", "do not match"),
        ("a}.tar", "do not match"),
        ("{a{0..1}}", "do not match"),
    ],
)
def test_other_braces_are_refused(text, message):
    with pytest.raises(ValueError, match=message):
        expand_braces(text)
