"""Models that come with the package: half-precision weights in weights/, each beside a JSON file that describes it.

They need no download and no configuration file. tools/ship_weights.py writes both files of a model.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from maskrcnn_benchmark.utils.atomic_write import atomic_write
from maskrcnn_benchmark.utils.text_file import nearest_name

from .safetensors_file import write_safetensors

FOLDER = Path(__file__).resolve().parents[1] / "weights"
SUFFIX = ".safetensors"
_REINSTALL = "pip install --force-reinstall --no-deps maskrcnn-benchmark, or git checkout in a clone"


@dataclass(frozen=True)
class ShippedModel:
    """A model that comes with the package.

    Attributes:
        name: name for `Predictor.from_zoo`.
        path: the weights, a .safetensors file; the JSON file beside it has the other attributes.
        summary: one line about the model.
        parameters: number of parameters of the model.
        sha256: hash of the weights file, in hexadecimal digits.
        class_names, category_ids: names and dataset ids of labels 1..K.
        score_threshold: the score with the highest F1 on the test set.
        figures: metric to value on the test set, measured with the weights in the file.
        data: training and test data.
        command: command that trained it.
        date: date when the file was made, YYYY-MM-DD.
        made_with: versions and seed that made it.
        licence: licences of the weights and of the training data.
        config: settings that differ from the defaults, as a tree.
    """

    name: str
    path: Path
    summary: str
    parameters: int
    sha256: str
    class_names: tuple[str, ...]
    category_ids: tuple[int, ...]
    score_threshold: float
    figures: dict[str, float]
    data: str
    command: str
    date: str
    made_with: str
    licence: str
    config: dict


def shipped_models(folder: str | os.PathLike = FOLDER) -> dict[str, ShippedModel]:
    """Return the models that come with the package, by name; their weights are not read."""
    paths = sorted(Path(folder).glob(f"*{SUFFIX}"))
    return {path.stem: _described(path) for path in paths}


def shipped_model(name: str, folder: str | os.PathLike = FOLDER) -> ShippedModel:
    """Return a model by name, after checking that its weights are those that were shipped.

    Raises:
        ValueError: there is no such model (the message lists the names), or the weights have another checksum.
    """
    models = shipped_models(folder)
    if name not in models:
        near = nearest_name(str(name), list(models))
        hint = f"; nearest is {near!r}" if near else ""
        raise ValueError(
            f"no model {name!r} comes with the package{hint}. There are: {', '.join(models) or 'none'}. Checkpoints of "
            "one's own: Predictor.from_checkpoint(FILE). Published weights (tools/weights.py list): Predictor(CONFIG, "
            "weights='catalog://NAME')"
        )
    model = models[name]
    digest = sha256_of(model.path)
    if digest != model.sha256:
        raise ValueError(
            f"{model.path} is not the file that was shipped: its sha256 is {digest}, wanted {model.sha256}. Install "
            f"the package again: {_REINSTALL}"
        )
    return model


def write_weights(name: str, state: Mapping[str, torch.Tensor], folder: str | os.PathLike = FOLDER) -> Path:
    """Write the weights of a model in half precision, and return the path.

    Args:
        name: name of the model.
        state: tensors by name; those that are not floating point keep their dtype.

    Raises:
        ValueError: a number is not finite, or too large for half precision; the message names its tensor.
    """
    path = Path(folder) / f"{name}{SUFFIX}"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_safetensors(path, {key: _halved(key, tensor) for key, tensor in state.items()})
    return path


def write_description(model: ShippedModel) -> Path:
    """Write the JSON file beside the weights, and return its path."""
    entries = dataclasses.asdict(model)
    del entries["name"], entries["path"]
    path = model.path.with_suffix(".json")
    with atomic_write(path) as file:
        text = json.dumps(entries, indent=2, ensure_ascii=False)
        # lists of numbers and names on one line
        text = re.sub(r"\[\s+([^][{}]*?)\s+\]", lambda found: f"[{' '.join(found[1].split())}]", text)
        file.write((text + "\n").encode())
    return path


def sha256_of(path: str | os.PathLike) -> str:
    """Return the checksum of a file, in hexadecimal digits."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def _described(path: Path) -> ShippedModel:
    description = path.with_suffix(".json")
    try:
        entries = json.loads(description.read_text(encoding="utf-8"))
        for key in ("class_names", "category_ids"):
            entries[key] = tuple(entries[key])
        return ShippedModel(name=path.stem, path=path, **entries)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ValueError(
            f"{description} does not describe {path.name} ({error}). Install the package again: {_REINSTALL}"
        ) from error


def _halved(key: str, tensor: torch.Tensor) -> torch.Tensor:
    if not tensor.is_floating_point():
        return tensor
    half = tensor.half()
    if not torch.isfinite(half).all():
        largest = torch.finfo(half.dtype).max
        raise ValueError(f"{key} has numbers that half precision cannot hold: not finite, or over {largest:g}")
    return half
