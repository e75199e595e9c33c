"""Names of the same tensors in files of other origins: one entry a dialect.

Files whose names end like the model's (the forks' detectors, VoVNet's ImageNet files, torchvision's ResNets, converted
Caffe2 files) need no entry: the suffix matching of model_serialization covers them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Dialect:
    """How a file of one origin names what the model names otherwise.

    Attributes:
        name: what the report calls it.
        signature: regular expression; a file with a key in which it is found, and a model without one, is of this
            dialect. A model that has such names itself is left alone.
        renames: (pattern, replacement) pairs; the first pattern found in a key renames it.
    """

    name: str
    signature: str
    renames: tuple[tuple[str, str], ...]


DIALECTS = (
    # The network calls its norm layers "norm"; files trained before that was settled say "bn".
    Dialect("VoVNet with norm layers named bn", r"/bn\.", ((r"/bn\.", "/norm."),)),
    # torchvision nests convolution, norm and ReLU6 of a step in a Sequential; the forks have them in one flat list.
    # Block 1 has no expansion step, so its projection comes one step earlier.
    Dialect(
        "torchvision MobileNetV2",
        r"features\.\d+\.conv\.\d\.\d\.",
        (
            (r"(features\.\d+\.conv)\.0\.([01])\.", r"\1.\2."),
            (r"(features\.\d+\.conv)\.1\.0\.", r"\1.3."),
            (r"(features\.\d+\.conv)\.1\.1\.", r"\1.4."),
            (r"(features\.1\.conv)\.1\.", r"\1.3."),
            (r"(features\.1\.conv)\.2\.", r"\1.4."),
            (r"(features\.\d+\.conv)\.2\.", r"\1.6."),
            (r"(features\.\d+\.conv)\.3\.", r"\1.7."),
        ),
    ),
)


def find_dialect(file_keys: Iterable[str], model_keys: Iterable[str]) -> Dialect | None:
    """The first dialect whose signature the file has and the model has not."""
    file_text, model_text = "\n".join(file_keys), "\n".join(model_keys)
    for dialect in DIALECTS:
        if re.search(dialect.signature, file_text) and not re.search(dialect.signature, model_text):
            return dialect
    return None


def rename(key: str, dialect: Dialect) -> str:
    """The key as our models write it."""
    for pattern, replacement in dialect.renames:
        renamed, found = re.subn(pattern, replacement, key)
        if found:
            return renamed
    return key
