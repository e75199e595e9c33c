"""Time the whole pipeline of a Predictor, from JPEG to JSON, against its model alone.

    python benchmarks/predict.py [--config-file configs/vovnet/fcos_V_39_FPN_1x.yaml] [--images 20] [--threads 2]

Weights are random, with as many detections as trained weights give. Both sides predict the same images, interleaved.
The model alone gets network inputs in memory. `--memory 10000` instead predicts 10000 small images and prints the
memory of the process, which must not grow.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
from pathlib import Path

import timing
import torch

from maskrcnn_benchmark.config import cfg as defaults
from maskrcnn_benchmark.engine.prediction_files import to_json
from maskrcnn_benchmark.engine.predictor import Predictor
from maskrcnn_benchmark.modeling.detector import build_detection_model
from maskrcnn_benchmark.profiling.random_weights import set_score_thresholds, set_statistics
from maskrcnn_benchmark.profiling.synthetic import write_synthetic_data

SIZE = (640, 480)
SMALL = (96, 64)


def make_predictor(args: argparse.Namespace, paths: list[str], opts=()) -> Predictor:
    cfg = defaults.clone()
    cfg.merge_from_file(args.config_file)
    cfg.merge_from_list(["MODEL.DEVICE", "cpu", *opts])
    model = build_detection_model(cfg).eval()
    plain = Predictor(cfg, model=model, class_names=None)
    image = plain.setup.transform(plain.reader(paths[0]))
    with torch.no_grad():
        set_statistics(model, lambda: model([image]))
        set_score_thresholds(model, lambda: model([image]), args.detections)
    return Predictor(cfg, model=model, batch_size=args.batch_size, dtype=args.dtype)


def throughput(args: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as folder:
        write_synthetic_data(Path(folder), args.images, SIZE, 1, False)
        paths = sorted(str(path) for path in Path(folder).glob("*.jpg"))
        predictor = make_predictor(args, paths)
        inputs = [predictor.setup.transform(predictor.reader(path)) for path in paths]
        batches = [inputs[k : k + predictor.batch_size] for k in range(0, len(inputs), predictor.batch_size)]

        def model_alone():
            for batch in batches:
                predictor.setup.run(batch, [SIZE] * len(batch))

        def pipeline():
            for prediction in predictor.stream(paths):
                json.dumps(to_json(prediction))

        found = len(predictor(paths[0]))
        alone, whole = timing.medians([model_alone, pipeline], args.repeats, args.clock)
    count = len(paths)
    print(f"{args.config_file}, {count} JPEGs of {SIZE[0]} x {SIZE[1]}, {found} detections in the first one")
    print(f"model alone        {alone / count:8.1f} ms/image {1e3 * count / alone:8.2f} images/s")
    print(f"JPEG to JSON       {whole / count:8.1f} ms/image {1e3 * count / whole:8.2f} images/s")
    print(f"pipeline / model   {alone / whole:8.3f}")


def memory(args: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as folder:
        write_synthetic_data(Path(folder), 20, SMALL, 1, False)
        paths = sorted(str(path) for path in Path(folder).glob("*.jpg"))
        predictor = make_predictor(args, paths, ["INPUT.MIN_SIZE_TEST", 64, "INPUT.MAX_SIZE_TEST", 96])
        images = (paths[k % len(paths)] for k in range(args.memory))
        for k, prediction in enumerate(predictor.stream(images), start=1):
            json.dumps(to_json(prediction))
            if k % max(args.memory // 10, 1) == 0:
                print(f"{k:8,} images {resident():8.1f} MiB, peak {peak():8.1f} MiB")


def resident() -> float:
    """Return the resident memory of the process in MiB; 0 if the system does not report it."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    timing.add_options(parser, repeats=5)
    parser.add_argument("--config-file", default="configs/vovnet/fcos_V_39_FPN_1x.yaml", metavar="FILE")
    parser.add_argument("--images", type=timing.positive, default=20)
    parser.add_argument("--batch-size", type=timing.positive, default=1)
    parser.add_argument("--detections", type=timing.positive, default=100)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--memory", type=int, default=0, metavar="IMAGES")
    args = parser.parse_args()
    timing.begin(args)
    (memory if args.memory else throughput)(args)


if __name__ == "__main__":
    main()
