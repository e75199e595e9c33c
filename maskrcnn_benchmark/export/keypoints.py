"""Decode keypoints from heatmaps, as an op with an implementation in ONNX and one in plain torch.

Shapes: R regions, K keypoints of each, M pixels per side of a heatmap.
"""

from __future__ import annotations

import torch
from torch import Tensor

from maskrcnn_benchmark.modeling.roi_heads.keypoint_head.inference import Keypointer
from maskrcnn_benchmark.structures.bounding_box import BoxList

# ONNX graph for one region: resize its heatmaps to the size of its box, and take the maximum of each.
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
    """Decode heatmaps (R, K, M, M) of boxes (R, 4) to keypoints (R, K, 3) x, y, logit, as Keypointer does."""
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


def torch_decompositions() -> dict:
    """Return the table of ExportedProgram.run_decompositions: the op in plain torch, one region at a time."""
    from torch._higher_order_ops.map import map as map_rows

    def decode_in_torch(heat_maps, boxes):
        # One additional region, because a loop in torch.export requires at least one iteration.
        heat_maps = torch.cat((heat_maps, heat_maps.new_zeros(1, *heat_maps.shape[1:])))
        boxes = torch.cat((boxes, boxes.new_zeros(1, 4)))
        width, height = _sides(boxes).ceil().amax(dim=0).long().tolist()
        columns, rows = (torch.arange(side, dtype=boxes.dtype, device=boxes.device) for side in (width, height))
        return map_rows(_points_of_region, (heat_maps, boxes), columns, rows)[:-1]

    return {torch.ops.maskrcnn_benchmark_export.decode_keypoints.default: decode_in_torch}


def _points_of_region(region, columns: Tensor, rows: Tensor) -> Tensor:
    """Decode keypoints (K, 3) from heatmaps (K, M, M) of a box (4,), on the pixel grid of the largest box."""
    heat_maps, box = region
    sides = _sides(box)
    width, height = sides.ceil()
    across = _bicubic_weights(columns, heat_maps.shape[2], width)
    down = _bicubic_weights(rows, heat_maps.shape[1], height)
    enlarged = down @ heat_maps @ across.T
    enlarged = torch.where((rows[:, None] < height) & (columns < width), enlarged, -torch.inf)
    value_of_row, column_of_row = enlarged.max(dim=2)
    value, row = value_of_row.max(dim=1)
    column = column_of_row.gather(1, row[:, None]).squeeze(1)
    x = (column + 0.5) * (sides[0] / width) + box[0]
    y = (row + 0.5) * (sides[1] / height) + box[1]
    return torch.stack((x, y, value), dim=1)


def _sides(boxes: Tensor) -> Tensor:
    return (boxes[..., 2:] - boxes[..., :2]).clamp(min=1)


def _bicubic_weights(places: Tensor, size: int, length: Tensor) -> Tensor:
    """Return weights (P, size) that resize `size` pixels to `length`, at output pixels (P,), as F.interpolate does.

    The bicubic kernel is that of Keys (1981) with a = -0.75.
    """
    a = -0.75
    center = (places + 0.5) * (size / length) - 0.5
    first = center.floor()
    offset = torch.arange(-1, 3, device=places.device)
    distance = (center[:, None] - (first[:, None] + offset)).abs()
    near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    far = ((distance - 5) * distance + 8) * distance * a - 4 * a
    pixels = (first[:, None].long() + offset).clamp(0, size - 1)
    weights = torch.where(distance <= 1, near, far)
    return weights.new_zeros(places.shape[0], size).scatter_add(1, pixels, weights)
