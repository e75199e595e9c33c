"""Export a model to a file, and find real images to compare it on."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import nn

from maskrcnn_benchmark.data.build import build_dataset, reading_of
from maskrcnn_benchmark.data.datasets.image_settings import image_settings
from maskrcnn_benchmark.export import formats, runtime
from maskrcnn_benchmark.export.metadata import describe
from maskrcnn_benchmark.export.model import make_exportable
from maskrcnn_benchmark.structures.label_names import LabelNames


class ProgramModel(runtime.Model):
    """A program of torch.export with the interface of `runtime.Model`."""

    def __init__(self, path: str):
        import torchvision.ops  # noqa: F401  registers the ops

        files = {f"{formats.METADATA_KEY}.json": ""}
        if not os.path.exists(path):
            raise FileNotFoundError(f"there is no file {path}")
        try:
            # The guards pin which maps have a single row or column, but no operator of the program depends on that.
            program = torch.export.load(path, extra_files=files).module(check_guards=False)
        except Exception as error:
            raise ValueError(f"{path} is damaged, or no program of torch.export: {error}") from error
        self._take_metadata(path, files[f"{formats.METADATA_KEY}.json"])
        self._run = lambda feeds: [
            value.numpy() for value in program(*[torch.from_numpy(np.asarray(each)) for each in feeds.values()])
        ]


def export_model(
    cfg,
    model: nn.Module,
    label_names: LabelNames,
    path: str,
    kind: str = "onnx",
    fixed_size: tuple[int, int] | None = None,
    batch: int = 1,
    dense_only: bool = False,
    exact: bool = True,
    image_size: Sequence[int] | None = None,
) -> nn.Module:
    """Export a model to a file, and return the module that was traced.

    Args:
        cfg, model, label_names: as `engine.predictor_setup.load_model` returns them, on the CPU.
        path: file to write, with the format's suffix.
        kind: key of formats.FORMATS.
        fixed_size: (height, width) of all images; None makes both and the batch size dynamic.
        batch: batch size for `fixed_size`.
        dense_only: export only backbone and dense heads, see DensePart.
        exact: False uses the runtime's group normalization, which is less exact and a few percent faster; meant for
            models that are quantized afterwards.
        image_size: typical [width, height] of the training images, as `load_model` returns it; None if unknown. It
            limits how much the windows of large images are shrunk.

    Returns:
        The ExportableModel, or the DensePart with dense_only.

    Raises:
        NotExportable: a part of the model has no form outside of PyTorch.
        ImportError: a package of the format is not installed.
    """
    formats.need(*formats.PACKAGES[kind])
    exportable = make_exportable(cfg, model, all_places=fixed_size is not None, dense_only=dense_only)
    exportable.frees_sides = kind != "torch_export" and fixed_size is None
    metadata = describe(cfg, model, exportable, label_names, fixed_size, batch if fixed_size else 0, image_size)
    program = formats.trace(exportable, fixed_size, batch, metadata["size_divisible"])
    with formats.in_place_of(path) as written:
        if kind == "onnx":
            formats.write_onnx(program, exportable, written, metadata, exact)
        elif kind == "torch_export":
            formats.write_torch_export(program, written, metadata)
        else:
            with tempfile.TemporaryDirectory() as folder:
                onnx_path = os.path.join(folder, "model.onnx")
                formats.write_onnx(program, exportable, onnx_path, metadata, exact, has_deform_conv=False)
                formats.write_openvino(onnx_path, written, metadata)
    return exportable


def open_exported(path: str, threads: int | None = None) -> runtime.Model:
    """Open an exported model of any format; see `runtime.Model`.

    Raises:
        ValueError: the suffix is unknown, or the file is damaged or was not written by tools/export.py.
        OSError: there is no such file.
        ImportError: its engine is not installed.
    """
    kind = next((each for each, suffix in formats.FORMATS.items() if path.endswith(suffix)), None)
    if kind is None:
        raise ValueError(f"{path} is no exported model: their names end in {', '.join(formats.FORMATS.values())}")
    if kind == "torch_export":
        return ProgramModel(path)
    formats.need(runtime.ENGINES[formats.FORMATS[kind]])
    return runtime.Model(path, threads=threads)


def copy_runtime(folder: str) -> str:
    """Copy the runtime file to a folder; return its path."""
    return shutil.copy(runtime.__file__, os.path.join(folder, "runtime.py"))


def images_of_dataset(cfg, entry, count: int, cut: bool = False) -> Iterator[np.ndarray]:
    """Yield up to `count` images (H, W, 3) uint8 RGB of a dataset, alternating between its image sizes.

    Args:
        entry: entry of DATASETS.TRAIN or DATASETS.TEST.
        cut: crop every second image if all images of the dataset have the same size.
    """
    (dataset,) = build_dataset(
        [entry],
        None,
        is_train=False,
        root=cfg.DATASETS.ROOT,
        images=image_settings(cfg),
        reading=reading_of(cfg),
    )
    by_size: dict[tuple, list[int]] = {}
    for index in range(len(dataset)):
        info = dataset.get_img_info(index)
        by_size.setdefault((info["width"], info["height"]), []).append(index)
    turns = [indices[turn] for turn in range(count) for indices in by_size.values() if turn < len(indices)]
    for number, index in enumerate(turns[:count]):
        pixels = np.asarray(dataset[index][0])
        if cut and len(by_size) == 1 and number % 2:
            pixels = pixels[: pixels.shape[0] * 3 // 4, : pixels.shape[1] * (2 + number % 4) // 6]
        yield np.ascontiguousarray(pixels)
