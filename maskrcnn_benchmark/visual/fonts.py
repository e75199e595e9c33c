"""Find fonts that have the letters of class names.

Pillow's own font has few letters beyond ASCII. The machine's fonts are searched for one that has all letters of a text.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import sys
from collections.abc import Iterable, Iterator
from functools import lru_cache

from PIL import ImageFont

logger = logging.getLogger(__name__)

# Files that are tried first, by the start of their name: many Latin, Greek and Cyrillic letters, then Chinese,
# Japanese and Korean ones.
PREFERRED = (
    "DejaVuSans.ttf",
    "NotoSans-Regular",
    "LiberationSans-Regular",
    "arial.ttf",
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
ENDINGS = (".ttf", ".otf", ".ttc")
# Maximum number of the machine's fonts to try.
TRIED = 400
# A character that no font has. It is drawn like every missing one.
NO_CHARACTER = "\uffff"
PROBE_SIZE = 20


def font_for(texts: Iterable[str], size: int, path: str | os.PathLike | None = None) -> ImageFont.FreeTypeFont:
    """Return a font with all letters of the texts: Pillow's own if it has them, otherwise one of the machine's.

    If there is none, the font with the most of them is returned, and a warning names the missing letters once.

    Args:
        size: height in pixels.
        path: font file to use in any case.

    Raises:
        ValueError: `path` is not a font file.
    """
    letters = "".join(sorted({letter for text in texts for letter in text if not letter.isspace()}))
    if path is not None:
        try:
            font = ImageFont.truetype(os.fspath(path), size)
        except OSError as error:
            raise ValueError(f"{os.fspath(path)} is not a font file: {error}") from None
        _warn_of_missing(missing_letters(font, letters), os.fspath(path))
        return font
    chosen = _find(letters)
    return ImageFont.load_default(size) if chosen is None else ImageFont.truetype(chosen, size)


def missing_letters(font, letters: str) -> str:
    """Return the letters that the font draws like characters that it does not have."""
    if _drawn(font, "A") == _drawn(font, "B"):  # a fallback font draws boxes for everything
        return letters
    blank = _drawn(font, NO_CHARACTER)
    return "".join(letter for letter in letters if _drawn(font, letter) == blank)


@lru_cache(maxsize=64)
def _find(letters: str) -> str | None:
    """Return the file of the font that has most of the letters; None is Pillow's own."""
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
    _warn_of_missing(lacking, None)
    return best


@lru_cache(maxsize=64)
def _warn_of_missing(letters: str, path: str | None) -> None:
    if letters:
        shown = " ".join(letters[:20]) + (" ..." if len(letters) > 20 else "")
        which = "no font of this machine has" if path is None else f"{path} does not have"
        logger.warning(
            f"{which} the letters {shown}: they are drawn as empty boxes. Name a font file that has them (--font of "
            "tools/draw_predictions.py, argument `font` of visual.drawing), or install one, such as fonts-noto-cjk."
        )


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
