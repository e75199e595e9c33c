"""Find the keypoints of heatmaps, as an op with a form in ONNX.

Shapes: R regions, K keypoints of each, M pixels a side of a heatmap.
"""

from __future__ import annotations

import torch
from torch import Tensor

from maskrcnn_benchmark.modeling.roi_heads.keypoint_head.inference import Keypointer
from maskrcnn_benchmark.structures.bounding_box import BoxList

# One region: its heatmaps are enlarged to its box, and each keypoint is where its map is largest.
_OF_ONE_REGION = """
find (float[K, M, M] heat_maps, float[4] box) => (float[K, 3] points) {
    one = Constant<value_ints: ints = [1]>()
    zero = Constant<value_ints: ints = [0]>()
    one_pixel = Constant<value_floats: floats = [1.0]>()
    half = Constant<value_floats: floats = [0.5]>()
    rest = Constant<value_ints: ints = [-1]>()
    x1, y1, x2, y2 = Split<axis: int = 0, num_outputs: int = 4>(box)
    box_width_or_less = Sub(x2, x1)
    box_height_or_less = Sub(y2, y1)
    box_width = Max(box_width_or_less, one_pixel)
    box_height = Max(box_height_or_less, one_pixel)
    width = Ceil(box_width)
    height = Ceil(box_height)
    columns = Cast<to: int = 7>(width)
    rows = Cast<to: int = 7>(height)
    maps = Unsqueeze(heat_maps, zero)
    keypoints = Shape<start: int = 0, end: int = 1>(heat_maps)
    sizes = Concat<axis: int = 0>(one, keypoints, rows, columns)
    enlarged = Resize<
        mode: string = "cubic", cubic_coeff_a: float = -0.75, coordinate_transformation_mode: string = "half_pixel"
    >(maps, , , sizes)
    flat_shape = Concat<axis: int = 0>(keypoints, rest)
    flat = Reshape(enlarged, flat_shape)
    value = ReduceMax<keepdims: int = 1>(flat, one)
    place = ArgMax<axis: int = 1, keepdims: int = 1>(flat)
    column = Mod(place, columns)
    row = Div(place, columns)
    column_ = Cast<to: int = 1>(column)
    row_ = Cast<to: int = 1>(row)
    x_center = Add(column_, half)
    y_center = Add(row_, half)
    x_scale = Div(box_width, width)
    y_scale = Div(box_height, height)
    x_in_box = Mul(x_center, x_scale)
    y_in_box = Mul(y_center, y_scale)
    x = Add(x_in_box, x1)
    y = Add(y_in_box, y1)
    points = Concat<axis: int = 1>(x, y, value)
}
"""


@torch.library.custom_op("maskrcnn_benchmark_export::decode_keypoints", mutates_args=())
def decode_keypoints(heat_maps: Tensor, boxes: Tensor) -> Tensor:
    """Compute what Keypointer does: heatmaps (R, K, M, M) and boxes (R, 4) to (R, K, 3) of x, y and the logit there."""
    points, logits = Keypointer()(heat_maps, BoxList(boxes, (1, 1)))
    return torch.cat((points[:, :, :2], logits[:, :, None]), dim=2)


@decode_keypoints.register_fake
def _(heat_maps, boxes):
    return heat_maps.new_empty((*heat_maps.shape[:2], 3))


def onnx_translations() -> dict:
    """Return the translation table of torch.onnx.export; needs the package onnxscript."""
    import onnx.parser
    import onnx_ir
    from onnxscript import opset20 as op

    def decode_in_onnx(heat_maps, boxes):
        body = onnx_ir.from_proto(onnx.parser.parse_graph(_OF_ONE_REGION))
        return op.Scan(heat_maps, boxes, body=body, num_scan_inputs=2)

    return {torch.ops.maskrcnn_benchmark_export.decode_keypoints.default: decode_in_onnx}
