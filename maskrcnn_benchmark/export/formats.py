"""Write an exportable model as ONNX, OpenVINO or torch.export program."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import re
import tempfile
import warnings

import torch
from torch import nn

from maskrcnn_benchmark.export import deform_conv, group_norm, keypoints, ops
from maskrcnn_benchmark.export.errors import NotExportable
from maskrcnn_benchmark.export.model import example_inputs

FORMATS = {"onnx": ".onnx", "openvino": ".xml", "torch_export": ".pt2"}
# packages that write a format and run it
PACKAGES = {
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "openvino": ("openvino", "onnx", "onnxscript"),
    "torch_export": ("torchvision",),
}
METADATA_KEY = "maskrcnn_benchmark"
_TALKERS = ("", "torch.onnx", "torch.export", "torch.fx.experimental.symbolic_shapes", "onnxscript", "onnx_ir", "nncf")
# Sides that no stride divides, so that the traced graph contains every resize that some size needs.
ODD_SIZE = (803, 1085)


def trace(model: nn.Module, fixed_size: tuple[int, int] | None = None, batch: int = 1, divisor: int = 0):
    """Trace an exportable model with torch.export.

    Args:
        model: ExportableModel or DensePart.
        fixed_size: (height, width) of all images; None makes both and the batch size dynamic.
        batch: batch size for `fixed_size`.
        divisor: padded images have sides that are multiples of it; 0 if they need not.

    Raises:
        NotExportable: torch.export cannot trace the model. The message names the part and the cause.
    """
    dynamic = torch.export.Dim.DYNAMIC
    shapes = None
    if fixed_size is None:
        size = [-(-side // divisor) * divisor if divisor else side for side in ODD_SIZE]
        inputs = example_inputs(model, *size)
        shapes = {name: {0: dynamic} for name in model.input_names}
        sides = [dynamic] * 2
        if divisor:
            sides = [divisor * torch.export.Dim(name, min=1) for name in ("rows", "columns")]
        shapes["images"] = {0: dynamic, 1: sides[0], 2: sides[1]}
    else:
        inputs = example_inputs(model, *fixed_size, images=batch)
    try:
        with torch.no_grad(), quiet():
            return torch.export.export(model, inputs, dynamic_shapes=shapes, strict=False)
    except Exception as error:
        part = _part_of(error)
        raise NotExportable(f"torch.export cannot follow {part}: {error}") from error


def _part_of(error: Exception) -> str:
    """Name the class or function, module and line of this package that are deepest in the error's traceback."""
    found, trace_ = "the model", error.__traceback__
    while trace_ is not None:
        code = trace_.tb_frame.f_code
        module = trace_.tb_frame.f_globals.get("__name__", "")
        if module.startswith("maskrcnn_benchmark.") and not module.endswith("export.formats"):
            owner = trace_.tb_frame.f_locals.get("self")
            found = f"{type(owner).__name__ if owner is not None else code.co_name} ({module}, line {trace_.tb_lineno})"
        trace_ = trace_.tb_next
    return found


def write_onnx(
    program, model: nn.Module, path: str, metadata: dict, exact: bool = True, has_deform_conv: bool = True
) -> None:
    """Write a traced model as one ONNX file of opset 20 with standard operators only.

    Args:
        program: result of `trace` for `model`.
        exact: see `exporting.export_model`.
        has_deform_conv: whether the runtime supports the operator DeformConv; if not, GridSample replaces it.

    Raises:
        ImportError: onnx or onnxscript is not installed.
        NotExportable: an operator of the model has no form in ONNX.
    """
    need("onnx", "onnxscript")
    translations = ops.onnx_translations() | keypoints.onnx_translations()
    if exact:
        translations |= group_norm.onnx_translations()
    if not has_deform_conv:
        translations |= deform_conv.onnx_translations()
    try:
        with quiet():
            written = torch.onnx.export(
                program,
                (),
                dynamo=True,
                opset_version=ops.OPSET,
                custom_translation_table=translations,
                input_names=list(model.input_names),
                output_names=list(model.names),
                verbose=False,
            )
    except Exception as error:
        raise NotExportable(f"an operator of the model has no form in ONNX: {error}") from error
    _pad_pooling(written.model.graph)
    foreign = sorted({node.domain for node in written.model.graph.all_nodes()} - {"", "ai.onnx"})
    if foreign:
        raise NotExportable(f"the graph has operators that are not standard ONNX, of {', '.join(foreign)}")
    written.model.metadata_props[METADATA_KEY] = json.dumps(metadata)
    written.model.producer_name = METADATA_KEY
    written.save(path, external_data=False)


def _pad_pooling(graph) -> None:
    """Replace ceil_mode of 3x3 max pooling with stride 2 by one pixel of padding at the bottom and right.

    The results are equal. OpenVINO rejects ceil_mode on maps of two rows or columns.
    """
    import onnx_ir

    for node in graph.all_nodes():
        given = node.attributes
        if node.op_type != "MaxPool" or not given.get_int("ceil_mode", 0) or any(given.get_ints("pads", ())):
            continue
        if tuple(given.get_ints("kernel_shape")) == (3, 3) and tuple(given.get_ints("strides", (1, 1))) == (2, 2):
            given.add(onnx_ir.AttrInt64("ceil_mode", 0))
            given.add(onnx_ir.AttrInt64s("pads", [0, 0, 1, 1]))


def write_openvino(onnx_path: str, path: str, metadata: dict) -> None:
    """Convert an ONNX file to OpenVINO's .xml and .bin, weights in float32.

    Raises:
        ImportError: openvino is not installed.
        NotExportable: OpenVINO does not support an operator.
    """
    need("openvino")
    import openvino

    try:
        model = openvino.convert_model(onnx_path)
    except Exception as error:
        operators = re.search(r"No conversion rule found for operations: ([^\n]+)", str(error))
        found = operators.group(1) if operators else str(error)
        raise NotExportable(f"OpenVINO cannot read the ONNX operators {found}; --format onnx can") from error
    model.set_rt_info(json.dumps(metadata), [METADATA_KEY])
    openvino.save_model(model, path, compress_to_fp16=False)


def write_torch_export(program, path: str, metadata: dict) -> None:
    """Write a program for torch.export.load; it needs torch and torchvision, not this package.

    Raises:
        NotExportable: an op of the model has no form in torch and torchvision.
    """
    with quiet():
        program = program.run_decompositions(ops.torchvision_decompositions() | keypoints.torch_decompositions())
    targets = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    own = sorted(target for target in targets if target.startswith("maskrcnn_benchmark"))
    if own:
        raise NotExportable(f"{', '.join(own)} has no form in torch and torchvision alone; --format onnx may have one")
    for node in program.graph.nodes:  # maps with a single row have other strides than those that were traced
        if node.target is torch.ops.aten.view.default:
            node.target = torch.ops.aten.reshape.default
    program.graph_module.recompile()
    with quiet():
        torch.export.save(program, path, extra_files={f"{METADATA_KEY}.json": json.dumps(metadata)})


def need(*packages: str) -> None:
    """Raise ImportError with the install command if a package is missing."""
    for package in packages:
        try:
            __import__(package)
        except ImportError as error:
            extra = "openvino" if package in ("openvino", "nncf") else "export"
            raise ImportError(f"this needs the package {package}: pip install 'maskrcnn-benchmark[{extra}]'") from error


@contextlib.contextmanager
def in_place_of(path: str):
    """Yield a temporary path to write to; at the end of the block, its file and any beside it move to `path`."""
    target = os.path.dirname(os.path.abspath(path))
    with tempfile.TemporaryDirectory(dir=target, prefix=".export_") as folder:
        yield os.path.join(folder, os.path.basename(path))
        for name in os.listdir(folder):
            os.replace(os.path.join(folder, name), os.path.join(target, name))


@contextlib.contextmanager
def quiet():
    """Suppress the exporters' progress output and warnings."""
    loggers = [logging.getLogger(name) for name in _TALKERS]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def path_and_format(path: str, kind: str | None) -> tuple[str, str]:
    """Return the path with its format's suffix, and the format: `kind`, or that of the suffix, or ONNX.

    Raises:
        ValueError: the suffix is that of another format.
    """
    by_suffix = next((each for each, suffix in FORMATS.items() if path.endswith(suffix)), None)
    kind = kind or by_suffix or "onnx"
    if by_suffix not in (None, kind):
        raise ValueError(
            f"--format is {kind}, but {path} has the suffix of {by_suffix}; a file of {kind} ends in {FORMATS[kind]}"
        )
    return path if by_suffix else path + FORMATS[kind], kind


def check_writable(path: str) -> None:
    """Make the folder of a path, and raise an OSError if no file can be written to it."""
    folder = os.path.dirname(os.path.abspath(path))
    os.makedirs(folder, exist_ok=True)
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise OSError(f"cannot write to {folder}: {error.strerror}; choose another --output") from error
    if os.path.isdir(path):
        raise IsADirectoryError(f"{path} is a folder; choose another --output")
