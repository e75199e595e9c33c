import logging

import pytest
from PIL import ImageFont, features

from maskrcnn_benchmark.visual import fonts
from maskrcnn_benchmark.visual.fonts import Fonts, font_for, missing_letters

UMLAUTS = "äöüßéèñçåøłžšđőğ"


@pytest.fixture(autouse=True)
def fresh():
    for function in (fonts._find, fonts._warn_of_missing, fonts._warn_of_shaping):
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


@pytest.mark.parametrize(
    "name, package",
    [("猫", "fonts-noto-cjk"), ("ねこ", "fonts-noto-cjk"), ("قطة", "fonts-noto-core"), ("🐈", "fonts-symbola")],
)
def test_warning_names_a_package_with_such_letters(monkeypatch, caplog, name, package):
    monkeypatch.setattr(fonts, "_machine_fonts", lambda: [])
    with caplog.at_level(logging.WARNING):
        Fonts(["cat", name], 13)
    (record,) = caplog.records
    assert package in record.getMessage() and all(letter in record.getMessage() for letter in name)


@pytest.mark.parametrize("text", ["cat\u200d", "cat\ufe0f", "cat dog\n"])
def test_joiners_variants_and_spaces_are_no_missing_letters(monkeypatch, caplog, text):
    monkeypatch.setattr(fonts, "_machine_fonts", lambda: [])
    with caplog.at_level(logging.WARNING):
        Fonts([text], 13)
    assert not caplog.records


def test_each_text_has_a_font_with_its_letters(caplog):
    scripts = ("猫", "قطة", "बिल्ली", "кошка", "cat")
    with caplog.at_level(logging.WARNING):
        chosen = Fonts(scripts, 13)
    nowhere = caplog.text
    for text in scripts:
        lacking = missing_letters(chosen.of(f"{text} 0.5"), text)
        assert all(letter in nowhere for letter in lacking), text
    assert not missing_letters(chosen.of("кошка 0.25"), "0123456789.") and chosen.of("cat") is chosen.common
    assert chosen.of("猫 0.5").getname() == chosen.of("猫 0.75").getname()


def test_scripts_of_joined_letters_need_raqm(monkeypatch, caplog):
    monkeypatch.setattr(features, "check", lambda feature: feature != "raqm")
    with caplog.at_level(logging.WARNING):
        Fonts(["cat", "кошка", "猫"], 13)
        assert "Raqm" not in caplog.text
        Fonts(["cat", "قطة"], 13), Fonts(["बिल्ली"], 13)
    assert caplog.text.count("without Raqm") == 1


def test_arabic_is_drawn_joined_and_from_right_to_left():
    if not features.check("raqm"):
        pytest.skip("this Pillow has no Raqm")
    font = Fonts(["\u0642\u0637\u0629"], 20).of("\u0642\u0637\u0629")
    if missing_letters(font, "\u0642\u0637\u0629"):
        pytest.skip("no font of this machine has Arabic letters")
    joined = font.getlength("\u0642\u0637\u0629")
    apart = sum(font.getlength(letter) for letter in "\u0642\u0637\u0629")
    assert joined < apart


def test_given_font_is_used_or_refused(tmp_path):
    (tmp_path / "a.ttf").write_text("none")
    with pytest.raises(ValueError, match="a.ttf is not a font file"):
        font_for(["a"], 13, tmp_path / "a.ttf")
    machine = fonts._machine_fonts()
    if not machine:
        pytest.skip("no fonts on this machine")
    assert font_for(["a"], 13, machine[0]).path == machine[0]
