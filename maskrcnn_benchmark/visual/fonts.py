"""Find fonts that have the letters of class names.

Pillow's own font has few letters beyond ASCII. The machine's fonts are searched for one that has all letters of a text.
Arabic, Hindi and other scripts whose letters join are shaped by Raqm, which Pillow's wheels contain.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import sys
import unicodedata
from collections.abc import Iterable, Iterator
from functools import lru_cache

from PIL import ImageFont, features

logger = logging.getLogger(__name__)

# Files that are tried first, by the start of their name: many Latin, Greek and Cyrillic letters, then Chinese,
# Japanese and Korean ones.
PREFERRED = (
    "DejaVuSans.ttf",
    "NotoSans-Regular",
    "LiberationSans-Regular",
    "arial.ttf",
    "NotoSansCJK-Regular",
    "NotoSansCJK",
    "NotoSansSC",
    "SourceHanSans",
    "wqy-microhei",
    "wqy-zenhei",
    "DroidSansFallback",
    "msyh",
    "simhei",
    "PingFang",
    "Hiragino",
    "STHeiti",
    "Arial Unicode",
    "arialuni",
    "unifont",
)
# Beginnings of Unicode names.
EAST_ASIAN = ("CJK", "HIRAGANA", "KATAKANA", "HANGUL", "BOPOMOFO", "IDEOGRAPHIC", "FULLWIDTH", "HALFWIDTH")
# Variation selectors, which choose a form of the letter before them and are not drawn themselves.
VARIANTS = tuple(map(chr, range(0xFE00, 0xFE10)))
# Scripts that need shaping: Devanagari to Myanmar, and Khmer.
SHAPED = (("\u0900", "\u109f"), ("\u1780", "\u17ff"))
ENDINGS = (".ttf", ".otf", ".ttc")
# Maximum number of the machine's fonts to try.
TRIED = 400
# A character that no font has. It is drawn like every missing one.
NO_CHARACTER = "\uffff"
PROBE_SIZE = 20


class Fonts:
    """Fonts for texts in any script: one for all of them, and others for those whose letters it lacks.

    Letters that no font of the machine has are drawn as empty boxes, and a warning names them once. The letters of one
    text come from one font.

    Args:
        texts: texts to draw.
        size: height in pixels.
        path: font file to use in any case.

    Raises:
        ValueError: `path` is not a font file.
    """

    def __init__(self, texts: Iterable[str], size: int, path: str | os.PathLike | None = None):
        texts = list(texts)
        self.size = size
        self._others: dict[str, ImageFont.FreeTypeFont] = {}
        if path is not None:
            self.common = _from_file(path, size)
            _warn_of_missing(missing_letters(self.common, _letters(texts)), os.fspath(path))
            self._lacking: frozenset[str] = frozenset()
            return
        file, lacking = _find(_letters(texts))
        self.common = _open(file, size)
        self._lacking = frozenset(lacking)
        others = [_find(_with_digits(text))[1] for text in texts if self._lacking.intersection(text)]
        _warn_of_missing("".join(sorted(set("".join(others)))), None)
        if any(map(_needs_shaping, _letters(texts))) and not features.check("raqm"):
            _warn_of_shaping()

    def of(self, text: str) -> ImageFont.FreeTypeFont:
        """Return the font for one of the texts, or for one with the same letters and digits."""
        if not self._lacking.intersection(text):
            return self.common
        if text not in self._others:
            self._others[text] = _open(_find(_with_digits(text))[0], self.size)
        return self._others[text]


def font_for(texts: Iterable[str], size: int, path: str | os.PathLike | None = None) -> ImageFont.FreeTypeFont:
    """Return one font for all the texts, the one that has most of their letters; see Fonts."""
    text = "".join(texts)
    return Fonts([text], size, path).of(text)


def _from_file(path: str | os.PathLike, size: int) -> ImageFont.FreeTypeFont:
    try:
        return ImageFont.truetype(os.fspath(path), size)
    except OSError as error:
        raise ValueError(f"{os.fspath(path)} is not a font file: {error}") from None


def _open(path: str | None, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.load_default(size) if path is None else ImageFont.truetype(path, size)


def _letters(texts: Iterable[str]) -> str:
    """Return the distinct visible characters of the texts, without spaces, joiners and variation selectors."""
    visible = {letter for text in texts for letter in text if not letter.isspace()}
    return "".join(sorted(each for each in visible if unicodedata.category(each) != "Cf" and each not in VARIANTS))


def _with_digits(text: str) -> str:
    """Return the letters of a text and of scores, so that a class has one font whatever its score."""
    return _letters([text, "#0123456789.:"])


def missing_letters(font, letters: str) -> str:
    """Return the letters that the font draws like characters that it does not have."""
    if _drawn(font, "A") == _drawn(font, "B"):  # a fallback font draws boxes for everything
        return letters
    blank = _drawn(font, NO_CHARACTER)
    return "".join(letter for letter in letters if _drawn(font, letter) == blank)


@lru_cache(maxsize=1024)
def _find(letters: str) -> tuple[str | None, str]:
    """Return (file of the font with most of the letters, or None for Pillow's own; letters that it lacks)."""
    best, lacking = None, missing_letters(ImageFont.load_default(PROBE_SIZE), letters)
    for path in _machine_fonts() if lacking else ():
        try:
            missing = missing_letters(ImageFont.truetype(path, PROBE_SIZE), letters)
        except (OSError, ValueError):  # damaged, or a bitmap font of other sizes
            continue
        if len(missing) < len(lacking):
            best, lacking = path, missing
        if not lacking:
            break
    return best, lacking


@lru_cache(maxsize=64)
def _warn_of_missing(letters: str, path: str | None) -> None:
    if letters:
        shown = " ".join(letters[:20]) + (" ..." if len(letters) > 20 else "")
        which = "no font of this machine has" if path is None else f"{path} does not have"
        packages = ", ".join(sorted({_package(letter) for letter in letters}))
        logger.warning(
            f"{which} the letters {shown}: they are drawn as empty boxes. Name a font file that has them (--font of "
            f"tools/draw_predictions.py, argument `font` of visual.drawing), or install one; Debian has {packages}."
        )


@lru_cache(maxsize=1)
def _warn_of_shaping() -> None:
    logger.warning(
        "this Pillow is built without Raqm (PIL.features.check('raqm')): letters of Arabic, Hindi and other scripts "
        "are drawn unjoined and from left to right. Pillow's wheels have it: pip install --force-reinstall pillow"
    )


def _needs_shaping(letter: str) -> bool:
    # written from right to left, or in an Indic script or one of its relatives
    return unicodedata.bidirectional(letter) in ("R", "AL") or any(first <= letter <= last for first, last in SHAPED)


def _package(letter: str) -> str:
    """Return the Debian package of a font that should have the letter."""
    if unicodedata.name(letter, "").startswith(EAST_ASIAN):
        return "fonts-noto-cjk"
    # fonts of colored bitmaps, such as fonts-noto-color-emoji, have no letters of other sizes
    return "fonts-symbola" if unicodedata.category(letter) in ("So", "Sk", "Cn", "Co") else "fonts-noto-core"


def _drawn(font, letter: str) -> tuple:
    mask = font.getmask(letter)
    return mask.size, bytes(mask)


def _machine_fonts() -> list[str]:
    """Return font files, the preferred ones first."""
    found = []
    for folder in _font_folders():
        for place, _, names in os.walk(folder):
            found += [os.path.join(place, name) for name in sorted(names) if name.lower().endswith(ENDINGS)]

    def rank(path: str) -> int:
        name = os.path.basename(path).lower()
        starts = [k for k, start in enumerate(PREFERRED) if name.startswith(start.lower())]
        return starts[0] if starts else len(PREFERRED)

    return sorted(found, key=rank)[:TRIED]


def _font_folders() -> Iterator[str]:
    home = os.path.expanduser("~")
    if sys.platform == "win32":
        yield os.path.join(os.environ.get("WINDIR", r"C:\Windows"), "Fonts")
        yield os.path.join(home, r"AppData\Local\Microsoft\Windows\Fonts")
    elif sys.platform == "darwin":
        yield from (os.path.join(home, "Library/Fonts"), "/Library/Fonts", "/System/Library/Fonts")
    else:
        shared = os.environ.get("XDG_DATA_DIRS") or "/usr/local/share:/usr/share"
        yield from (os.path.join(folder, "fonts") for folder in shared.split(":"))
        yield from (os.path.join(home, ".fonts"), os.path.join(home, ".local/share/fonts"))
    spec = importlib.util.find_spec("matplotlib")
    if spec is not None and spec.origin:
        yield os.path.join(os.path.dirname(spec.origin), "mpl-data", "fonts", "ttf")
