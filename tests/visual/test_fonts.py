import logging

import pytest
from PIL import ImageFont

from maskrcnn_benchmark.visual import fonts
from maskrcnn_benchmark.visual.fonts import font_for, missing_letters

UMLAUTS = "äöüßéèñçåøłžšđőğ"


@pytest.fixture(autouse=True)
def fresh():
    for function in (fonts._find, fonts._warn_of_missing):
        function.cache_clear()


def test_missing_letters_are_those_without_a_glyph():
    assert missing_letters(ImageFont.load_default(20), "abc\ue000z") == "\ue000"  # for private use: no letter


def test_machine_fonts_are_used_for_letters_missing_in_pillows():
    assert font_for(["cat"], 13).getname() == ImageFont.load_default(13).getname()
    font = font_for([UMLAUTS], 13)
    if missing_letters(font, UMLAUTS):
        pytest.skip("no font of this machine has these letters")
    assert font.size == 13


def test_missing_letters_warn_once_with_the_option(caplog):
    with caplog.at_level(logging.WARNING):
        font_for(["a\U000f1234"], 13), font_for(["\U000f1234a"], 20)
    assert len(caplog.records) == 1
    assert "the letters \U000f1234: they are drawn as empty boxes" in caplog.text and "--font" in caplog.text


def test_given_font_is_used_or_refused(tmp_path):
    (tmp_path / "a.ttf").write_text("none")
    with pytest.raises(ValueError, match="a.ttf is not a font file"):
        font_for(["a"], 13, tmp_path / "a.ttf")
    machine = fonts._machine_fonts()
    if not machine:
        pytest.skip("no fonts on this machine")
    assert font_for(["a"], 13, machine[0]).path == machine[0]
