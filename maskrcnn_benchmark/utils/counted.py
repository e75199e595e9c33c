"""Put counts before plural phrases, in the singular where the count is one: "2 boxes without area", "1 box ..."."""

from __future__ import annotations

import re

# Nouns that messages count. Others are left as they are.
NOUNS = {
    "annotations": "annotation",
    "archives": "archive",
    "areas": "area",
    "boxes": "box",
    "categories": "category",
    "changes": "change",
    "classes": "class",
    "entries": "entry",
    "files": "file",
    "ids": "id",
    "images": "image",
    "keypoints": "keypoint",
    "lines": "line",
    "maps": "map",
    "masks": "mask",
    "names": "name",
    "objects": "object",
    "polygons": "polygon",
    "regions": "region",
    "rows": "row",
    "segmentations": "segmentation",
    "segments": "segment",
    "sets": "set",
    "shapes": "shape",
    "values": "value",
}
VERBS = {
    "are": "is",
    "begin": "begins",
    "differ": "differs",
    "disagree": "disagrees",
    "do": "does",
    "have": "has",
    "name": "names",
}
PHRASES = {"points and lines, which are no objects": "point or line, which is no object"}

_NOUN = re.compile(rf"\b({'|'.join(NOUNS)})\b")
_VERB = re.compile(rf"\b({'|'.join(VERBS)})\b")


def counted(count: int, phrase: str) -> str:
    """Format a count and a phrase with a plural noun, which becomes singular if the count is 1.

    The first noun of NOUNS, the first verb of VERBS after it in the same clause, and "their" are changed.
    """
    if count != 1:
        return f"{count:,} {phrase}"
    if phrase in PHRASES:
        return f"1 {PHRASES[phrase]}"
    noun = _NOUN.search(phrase)
    if noun is None:
        return f"1 {phrase}"
    clause, comma, rest = re.split(r"([,;]|$)", phrase[noun.end() :], maxsplit=1)
    clause = _VERB.sub(lambda verb: VERBS[verb[0]], clause, count=1)
    return f"1 {phrase[: noun.start()]}{NOUNS[noun[0]]}{re.sub(r'their', 'its', clause + comma + rest)}"
