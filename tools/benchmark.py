"""Measure parameters, FLOPs, time by stage, memory and energy of models.

    python tools/benchmark.py --config-file configs/vovnet/e2e_faster_rcnn_V_39_FPN_2x.yaml \\
        configs/e2e_faster_rcnn_R_50_FPN_2x.yaml --plot speed.png

Several configs are measured interleaved, image by image, and printed side by side. Without --weights, weights are
random, and score thresholds are set so that there are as many detections as with trained weights. Without --data,
images are synthetic. KEY VALUE pairs override all configs, for example MODEL.DEVICE cpu, DTYPE bfloat16,
INPUT.MIN_SIZE_TEST 600.
"""

# First, because the import runs the user's set-up code, if there is any.
import maskrcnn_benchmark.utils.env  # noqa: F401  # isort: skip
from maskrcnn_benchmark.engine import process  # isort: skip

process.before_torch()

import argparse
import contextlib
import itertools
import logging
import sys

import torch

from maskrcnn_benchmark.checkpoint.checkpointer import Checkpointer
from maskrcnn_benchmark.engine import launch, script
from maskrcnn_benchmark.engine.testing import choose_weights
from maskrcnn_benchmark.profiling.measure import measure
from maskrcnn_benchmark.profiling.plot import save_plot
from maskrcnn_benchmark.profiling.published import config_name
from maskrcnn_benchmark.profiling.report import as_json, as_text
from maskrcnn_benchmark.profiling.subjects import subject_of
from maskrcnn_benchmark.utils.atomic_write import write_json
from maskrcnn_benchmark.visual.figure_file import check_figure_file


def parse_arguments() -> argparse.Namespace:
    parser = script.make_parser(__doc__)
    parser.add_argument("--config-file", nargs="+", required=True, metavar="FILE", help="one or several YAML files")
    parser.add_argument("--weights", action="store_true", help="use the weights that tools/test_net.py would test")
    parser.add_argument("--data", action="store_true", help="use images of DATASETS.TEST")
    parser.add_argument(
        "--size", type=int, nargs=2, default=(640, 480), metavar=("W", "H"), help="image size"
    )
    parser.add_argument("--pictures", type=int, default=4, help="number of different images (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=10, help="images measured per config (default: %(default)s)")
    parser.add_argument("--warm-up", type=int, default=2, help="images before the measurement (default: %(default)s)")
    parser.add_argument("--train", type=int, default=0, metavar="N", help="also measure a training step of N images")
    parser.add_argument("--json", metavar="FILE", help="write all results to this file")
    parser.add_argument("--plot", metavar="FILE", help="plot speed against published accuracy (requires matplotlib)")
    parser.add_argument("opts", nargs=argparse.REMAINDER, help="overrides of all configs, KEY VALUE KEY VALUE ...")
    arguments = parser.parse_args()
    # --config-file also collects the KEY VALUE pairs that follow its files
    files = list(itertools.takewhile(lambda word: word.endswith((".yaml", ".yml")), arguments.config_file))
    arguments.opts = arguments.config_file[len(files) :] + arguments.opts
    arguments.config_file = files
    if not files:
        parser.error("--config-file requires files with the extension .yaml or .yml")
    if min(arguments.pictures, arguments.repeats, *arguments.size) < 1:
        parser.error("--pictures, --repeats and both numbers of --size must be at least 1")
    if min(arguments.warm_up, arguments.train) < 0:
        parser.error("--warm-up and --train must be at least 0")
    if arguments.plot:
        try:
            check_figure_file(arguments.plot)
        except (ImportError, ValueError) as error:
            parser.error(str(error))
    return arguments


def main() -> None:
    arguments = parse_arguments()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    configs = [launch.load_config(file, arguments.opts) for file in arguments.config_file]
    keep_memory = all(cfg.KEEP_FREED_MEMORY for cfg in configs)
    # Whatever the models' device: images are read and prepared on the CPU.
    process.prepare(logging.getLogger("maskrcnn_benchmark"), on_cpu=True, keep_memory=keep_memory)
    with contextlib.ExitStack() as folders:
        subjects = []
        for file, cfg in zip(arguments.config_file, configs, strict=True):
            weights = ""
            if arguments.weights:
                last = Checkpointer(torch.nn.Identity(), save_dir=cfg.OUTPUT_DIR)
                weights = choose_weights(cfg, last, None, arguments.opts)
            name = config_name(file)
            print(f"preparing {name} ...", file=sys.stderr, flush=True)
            subject = subject_of(name, cfg, weights, arguments.pictures, tuple(arguments.size), arguments.data)
            subjects.append(folders.enter_context(subject))
        measurements = measure(subjects, arguments.repeats, arguments.warm_up, arguments.train)
    settings = {
        "images": "DATASETS.TEST" if arguments.data else f"{arguments.size[0]} x {arguments.size[1]}",
        "repeats": arguments.repeats,
        "warm-up": arguments.warm_up,
    }
    if arguments.train:
        settings["training batch"] = arguments.train
    print(as_text(measurements, settings))
    if arguments.json:
        write_json(arguments.json, as_json(measurements, settings), indent=2)
    if arguments.plot:
        save_plot(measurements, arguments.plot)
        print(f"\n{arguments.plot}: plot of these configs and the published results")


if __name__ == "__main__":
    script.run(main)
