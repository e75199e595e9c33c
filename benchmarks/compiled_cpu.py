"""Time the dense part of a detector in torch (eager and compiled), OpenVINO and ONNX Runtime.

    python benchmarks/compiled_cpu.py [--config vovnet/e2e_faster_rcnn_V_39_FPN_2x.yaml] [--part features] [--threads 2]

All run interleaved in one process; see README.md in this folder for the protocol. OpenVINO and ONNX Runtime come with
pip install "maskrcnn-benchmark[benchmark]"; a missing one is skipped.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable, Iterator
from itertools import chain

import timing
import torch
from detectors import ours, settle
from torch import Tensor, nn

from maskrcnn_benchmark.fast.compiled import compile_dense_part
from maskrcnn_benchmark.fast.for_inference import for_inference

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
PARTS = {"features": "backbone and FPN", "head": "backbone, FPN and the first stage's head"}

Side = Callable[[], object]


class DensePart(nn.Module):
    """Backbone, FPN and optionally the first stage's head of a detector.

    Args:
        model: GeneralizedRCNN.
        part: key of PARTS.

    Forward takes (1, 3, H, W) and returns a tuple of the maps that the rest of the detector needs. The FPN maps come
    first, if there are ROI heads or no head is included. The outputs of the head follow, by output and level.
    """

    def __init__(self, model: nn.Module, part: str):
        super().__init__()
        self.backbone = model.backbone
        self.head = model.rpn.head if part == "head" else None
        self.returns_features = self.head is None or bool(model.roi_heads)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        features = self.backbone(x)
        outputs = () if self.head is None else chain.from_iterable(self.head(features))
        return (*(features if self.returns_features else ()), *outputs)


def torch_side(model: nn.Module, part: str, x: Tensor, dtype: torch.dtype, compiled: bool) -> Side:
    """Return a function that runs the part in torch."""
    model = for_inference(model, dtype)
    dense = DensePart(compile_dense_part(model) if compiled else model, part)

    def run():
        with torch.inference_mode(), torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
            return dense(x)

    return run


def exported(model: nn.Module, part: str, x: Tensor) -> torch.export.ExportedProgram:
    with torch.no_grad():
        return torch.export.export(DensePart(model, part).eval(), (x,))


def openvino_side(model: nn.Module, part: str, x: Tensor, dtype: torch.dtype, threads: int) -> Side:
    """Return a function that runs the part in OpenVINO, compiled for the size of `x`; maps use shared memory."""
    import openvino

    converted = openvino.convert_model(exported(model, part, x))
    options = {
        "INFERENCE_PRECISION_HINT": "f32" if dtype == torch.float32 else "bf16",
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
    }
    request = openvino.Core().compile_model(converted, "CPU", options).create_infer_request()
    image = x.contiguous().numpy()

    def run():
        found = request.infer([image], share_inputs=True, share_outputs=True)
        return [torch.from_numpy(found[i]) for i in range(len(found))]

    return run


def onnxruntime_side(model: nn.Module, part: str, x: Tensor, dtype: torch.dtype, threads: int) -> Side:
    """Return a function that runs the part in ONNX Runtime.

    Raises:
        NotImplementedError: dtype is bfloat16.
    """
    import onnxruntime

    if dtype != torch.float32:
        raise NotImplementedError("the CPU provider has no convolution in bfloat16")
    file = io.BytesIO()
    torch.onnx.export(exported(model, part, x), dynamo=True, verbose=False).save(file)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(file.getvalue(), options, providers=["CPUExecutionProvider"])
    (name,) = [entry.name for entry in session.get_inputs()]
    image = x.contiguous().numpy()
    return lambda: [torch.from_numpy(found) for found in session.run(None, {name: image})]


def sides(model: nn.Module, part: str, x: Tensor, dtype: torch.dtype, threads: int) -> Iterator[tuple[str, Side]]:
    """Yield (name, function) of each runtime; print the reason if one is skipped."""
    makers = {
        "eager": lambda: torch_side(model, part, x, dtype, compiled=False),
        "compiled": lambda: torch_side(model, part, x, dtype, compiled=True),
        "OpenVINO": lambda: openvino_side(model, part, x, dtype, threads),
        "ONNX Runtime": lambda: onnxruntime_side(model, part, x, dtype, threads),
    }
    for name, make in makers.items():
        try:
            yield name, make()
        except (ImportError, NotImplementedError) as reason:
            print(f"{name} skipped: {reason}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    timing.add_options(parser, repeats=7)
    parser.add_argument("--config", default="e2e_faster_rcnn_R_50_FPN_1x.yaml", help="file in configs/")
    parser.add_argument("--part", choices=PARTS, default=None, help="time only this part")
    parser.add_argument("--dtype", choices=DTYPES, default=None, help="time only this dtype")
    parser.add_argument("--size", type=int, nargs=2, default=(800, 1088), help="height and width of the image")
    arguments = parser.parse_args()
    timing.begin(arguments)
    x = torch.rand(1, 3, *arguments.size)
    model = ours(arguments.config).eval().requires_grad_(False)
    settle(model, lambda: model.backbone(x))
    for part in [name for name in PARTS if arguments.part in (None, name)]:
        print(f"{arguments.config}: {PARTS[part]}\n", flush=True)
        found, rows, wanted = [], [], None
        for dtype in [name for name in DTYPES if arguments.dtype in (None, name)]:
            for name, side in sides(model, part, x, DTYPES[dtype], arguments.threads):
                start = timing.CLOCKS[arguments.clock]()
                maps = side()
                first = timing.CLOCKS[arguments.clock]() - start
                wanted = maps if wanted is None else wanted
                rows.append((name, dtype, first, _difference(maps, wanted)))
                found.append(side)
        times = timing.medians(found, arguments.repeats, arguments.clock)
        compiled = {row[1]: ms for row, ms in zip(rows, times, strict=True) if row[0] == "compiled"}
        print("\n| | | ms | ratio to compiled | first run s | difference from the first row |")
        print("|---|---|---|---|---|---|")
        for (name, dtype, first, difference), ms in zip(rows, times, strict=True):
            print(f"| {name} | {dtype} | {ms:.0f} | {ms / compiled[dtype]:.2f} | {first:.1f} | {difference:.1e} |")
        print(flush=True)


def _difference(maps, wanted) -> float:
    """Return the largest relative L2 difference of any map."""
    pairs = [(a.double(), b.double()) for a, b in zip(maps, wanted, strict=True)]
    return max(((a - b).norm() / b.norm()).item() for a, b in pairs)


if __name__ == "__main__":
    main()
