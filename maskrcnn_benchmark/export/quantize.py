"""Quantize an exported model to 8 bits (post-training quantization), calibrated on images.

Convolutions and linear layers are quantized, with one scale per channel of the weights. The last layers of the heads,
which predict scores and boxes, and everything after them stay float32. In OpenVINO the layers of the classification
logits are quantized, too.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

import numpy as np

from maskrcnn_benchmark.export import formats, runtime
from maskrcnn_benchmark.export.errors import NotExportable

# Parts of the names of weights that stay float32: the last layers of dense, box, mask, keypoint and semantic heads.
FLOAT_LAYERS = (
    "cls_logits",
    "bbox_pred",
    "centerness",
    "cls_score",
    "mask_fcn_logits",
    "kps_score_lowres",
    "maskiou.predictor",
    "semantic_head.predictor",
    "semantic_head.conv3",
)
# Of these, the layers that OpenVINO quantizes without loss of AP, because it returns their logits in float32;
# onnxruntime would round the logits.
LOGITS_IN_INT8 = "cls_logits"
QUANTIZED = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def quantize(path: str, images: Iterable[np.ndarray], output: str) -> int:
    """Quantize an exported model and write it to a file.

    Args:
        path: .onnx or .xml file of a whole model.
        images: (H, W, 3) uint8 RGB images of the training data, for calibration.
        output: file of the same format.

    Returns:
        Number of layers that stay float32 because they predict scores and boxes.

    Raises:
        NotExportable: the format has no quantizer.
        ImportError: onnxruntime, or nncf, is not installed.
    """
    by_suffix = {formats.FORMATS["onnx"]: _quantize_onnx, formats.FORMATS["openvino"]: _quantize_openvino}
    suffix = os.path.splitext(path)[1]
    if suffix not in by_suffix:
        raise NotExportable(f"{path} cannot be quantized: --int8 takes --format onnx or openvino")
    # never overwrite a file that may be open: OpenVINO maps a model's weights from it
    with formats.in_place_of(output) as written:
        return by_suffix[suffix](path, images, written)


def feeds_of(model: runtime.Model, images: Iterable[np.ndarray]) -> Iterator[dict]:
    """Yield the network's inputs for each image, by name."""
    for image in images:
        batch, size = model.prepare(image)
        feeds = {"images": batch, "sizes": np.array([size] * len(batch), dtype=np.int64)}
        if "original_sizes" in model.metadata["inputs"]:
            feeds["original_sizes"] = np.array([image.shape[:2]] * len(batch), dtype=np.int64)
        yield feeds


def is_float_layer(weight: str) -> bool:
    """Return whether the layer with this weight stays float32."""
    return any(part in weight for part in FLOAT_LAYERS)


def _quantize_onnx(path: str, images: Iterable[np.ndarray], output: str) -> int:
    formats.need("onnx", "onnxruntime")
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    feeds = feeds_of(runtime.Model(path), images)

    class Reader(CalibrationDataReader):
        def get_next(self):
            return next(feeds, None)

    file = onnx.load(path)
    excluded = [
        node.name for node in file.graph.node if node.op_type in QUANTIZED and any(map(is_float_layer, node.input))
    ]
    with formats.quiet():
        quantize_static(
            path,
            output,
            Reader(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(QUANTIZED),
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=excluded,
            # 7 bits of weights keep the sums of CPUs without VNNI from overflowing
            reduce_range=not _has_vnni(),
        )
    quantized = onnx.load(output)
    del quantized.metadata_props[:]
    quantized.metadata_props.extend(file.metadata_props)
    onnx.save(quantized, output)
    return len(excluded)


def _has_vnni() -> bool:
    import torch

    return torch.cpu._is_vnni_supported()


def _quantize_openvino(path: str, images: Iterable[np.ndarray], output: str) -> int:
    formats.need("openvino", "nncf")
    import nncf
    import openvino

    model = openvino.Core().read_model(path)
    info = model.get_rt_info([runtime.KEY])
    feeds = list(feeds_of(runtime.Model(path), images))
    last, after = _after_heads(model)
    with formats.quiet():
        quantized = nncf.quantize(
            model,
            nncf.Dataset(feeds),
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(feeds),
            ignored_scope=nncf.IgnoredScope(names=sorted(last | after)),
            fast_bias_correction=True,
        )
    quantized.set_rt_info(info.astype(str), [runtime.KEY])
    openvino.save_model(quantized, output, compress_to_fp16=False)
    return len(last)


def _after_heads(model) -> tuple[set[str], set[str]]:
    """Return the names of layers that stay float32, and of all operations that follow the last layers of heads."""
    layers = [
        node
        for node in model.get_ordered_ops()
        if node.get_type_name() in ("Convolution", "GroupConvolution", "ConvolutionBackpropData", "MatMul")
        and any(is_float_layer(each) for each in _weights_before(node))
    ]
    last = {
        node.get_friendly_name() for node in layers if not any(LOGITS_IN_INT8 in each for each in _weights_before(node))
    }
    after, open_ = set(), list(layers)
    while open_:
        for output in open_.pop().outputs():
            for target in output.get_target_inputs():
                node = target.get_node()
                if node.get_friendly_name() not in after and node.get_type_name() not in ("Constant", "Result"):
                    after.add(node.get_friendly_name())
                    open_.append(node)
    return last, after


def _weights_before(node) -> list[str]:
    """Return the names of the constants that a layer reads, directly or through reshapes and transposes."""
    names, sources = [], [value.get_node() for value in node.input_values()[1:]]
    while sources:
        source = sources.pop()
        if source.get_type_name() == "Constant":
            names.append(source.get_friendly_name())
        elif source.get_type_name() in ("Reshape", "Transpose", "Convert", "Unsqueeze"):
            sources += [value.get_node() for value in source.input_values()]
    return names
