"""Time an exported FCOS R-50 against ours on the CPU in one process: float32, bfloat16, onnxruntime, OpenVINO, 8 bits.

    python benchmarks/export_cpu.py [--threads 2] [--repeats 5] [--config fcos/fcos_R_50_FPN_1x.yaml]

The image is 800 x 1088, weights are random, with about a hundred detections. Sides run in turn. Quantized models are
calibrated on the image itself and a few of its crops, which is enough for their speed. `--keep FOLDER` keeps the files.
"""

from __future__ import annotations

import argparse
import os
import tempfile

import numpy as np
import timing
import torch
from models_cpu import HEIGHT, WIDTH, detect, our_model

from maskrcnn_benchmark.config import cfg as default_cfg
from maskrcnn_benchmark.export import exporting, formats
from maskrcnn_benchmark.export.quantize import quantize
from maskrcnn_benchmark.export.versions import versions
from maskrcnn_benchmark.fast.for_inference import for_inference
from maskrcnn_benchmark.structures.label_names import LabelNames


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--config", default="fcos/fcos_R_50_FPN_1x.yaml", help="file below configs/")
    parser.add_argument("--clock", choices=list(timing.CLOCKS), default="wall")
    parser.add_argument("--keep", metavar="FOLDER", help="folder for the exported files")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    generator = np.random.default_rng(0)
    coarse = generator.integers(0, 256, (HEIGHT // 16, WIDTH // 16, 3), dtype=np.uint8)
    pixels = np.ascontiguousarray(coarse.repeat(16, axis=0).repeat(16, axis=1))
    image = torch.from_numpy(pixels).permute(2, 0, 1).float() / 255
    model = our_model(args.config, "fcos", image)
    cfg = default_cfg.clone()
    cfg.merge_from_file(os.path.join(os.path.dirname(__file__), "..", "configs", args.config))
    # as `detect` normalizes
    cfg.INPUT.PIXEL_MEAN, cfg.INPUT.PIXEL_STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    cfg.INPUT.TO_BGR255 = False
    names = LabelNames([f"class {k}" for k in range(1, cfg.MODEL.FCOS.NUM_CLASSES)])
    with tempfile.TemporaryDirectory() as folder:
        folder = args.keep or folder
        os.makedirs(folder, exist_ok=True)
        calibration = [pixels, np.ascontiguousarray(pixels[::-1]), np.ascontiguousarray(pixels[:, ::-1])]
        files = {}
        for name, kind in (("onnxruntime", "onnx"), ("OpenVINO", "openvino")):
            exact, source, int8 = (
                os.path.join(folder, f"{stem}{formats.FORMATS[kind]}") for stem in ("fcos", "source", "fcos_int8")
            )
            exporting.export_model(cfg, model, names, exact, kind)
            exporting.export_model(cfg, model, names, source, kind, exact=False)
            quantize(source, calibration, int8)
            files |= {f"{name} float32": exact, f"{name} 8 bits": int8}
        sides = {}
        for dtype in (torch.float32, torch.bfloat16):
            copy = for_inference(model, dtype)
            sides[f"ours {str(dtype).removeprefix('torch.')}"] = lambda copy=copy, dtype=dtype: detect(
                copy, image, dtype
            )
        for name, path in files.items():
            exported = exporting.open_exported(path, args.threads)
            sides[name] = lambda exported=exported: exported.run(pixels[None], [(HEIGHT, WIDTH)])
        times = timing.medians(list(sides.values()), args.repeats, args.clock)
    print(f"{timing.cpu_name()}, threads: {args.threads}; {versions('onnx')}; {versions('openvino')}")
    print(f"{args.config}, {HEIGHT} x {WIDTH}, median of {args.repeats} ({args.clock} time)")
    for name, milliseconds in zip(sides, times, strict=True):
        print(f"{name:<22} {milliseconds:7.0f} ms   {times[0] / milliseconds:.2f} x ours in float32")


if __name__ == "__main__":
    main()
