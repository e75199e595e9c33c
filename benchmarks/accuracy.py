"""Compare the detections of trained models in faster modes (Winograd, bfloat16) with plain float32.

    python benchmarks/accuracy.py RUN [RUN ...] [KEY VALUE ...]

RUN is the OUTPUT_DIR of a training, with config.yml and model_final.pth. The models are tested on DATASETS.TEST. See
README.md in this folder.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import os

import timing
import torch

from maskrcnn_benchmark.checkpoint.checkpointer import DetectronCheckpointer
from maskrcnn_benchmark.engine import launch
from maskrcnn_benchmark.engine.inference import compute_on_dataset
from maskrcnn_benchmark.engine.testing import make_evaluation_options, make_test_loaders
from maskrcnn_benchmark.evaluation.coco import coco_evaluation
from maskrcnn_benchmark.evaluation.matching import count_matches
from maskrcnn_benchmark.fast.for_inference import for_inference
from maskrcnn_benchmark.modeling.detector import build_detection_model

# name: dtype, Winograd algorithm for 3x3 convolutions; the first mode is the reference
MODES = {
    "float32": (torch.float32, False),
    "float32, Winograd": (torch.float32, True),
    "bfloat16": (torch.bfloat16, False),
    "bfloat16, Winograd": (torch.bfloat16, True),
}
SCORE, OVERLAP = 0.3, 0.9  # two detections agree if their labels are equal and their boxes have this IoU


def detect(cfg, model, loader, dtype, winograd):
    """Predict and evaluate a dataset; return BoxLists by dataset index, and metrics by task."""
    dataset = loader.dataset
    found = compute_on_dataset(for_inference(model, dtype, winograd), loader, cfg.MODEL.DEVICE, dtype=dtype)
    found = [found[index] for index in range(len(dataset))]
    iou_types = ("bbox", "segm") if cfg.MODEL.MASK_ON else ("bbox",)
    with contextlib.redirect_stdout(io.StringIO()):
        results, _ = coco_evaluation(dataset, found, None, iou_types=iou_types, options=make_evaluation_options(cfg))
    return found, results.results


def agreement(one, other) -> float:
    """Return the share of the detections in `one` with a score of at least SCORE that `other` has, too."""
    same = count = 0
    for sure, candidates in zip(one, other, strict=True):
        sure = sure[sure.get_field("scores") >= SCORE]
        # a lower threshold, because rounding may move a score below SCORE
        candidates = candidates[candidates.get_field("scores") >= SCORE - 0.05]
        same, count = same + count_matches(sure, candidates, OVERLAP), count + len(sure)
    return same / max(count, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("runs_and_opts", nargs="+", metavar="RUN or KEY VALUE")
    arguments = parser.parse_args()
    words = arguments.runs_and_opts
    runs = [word for word in words if os.path.isfile(os.path.join(word, "config.yml"))]
    if words[: len(runs)] != runs or not runs:
        parser.error("arguments must be folders with a config.yml, followed by KEY VALUE pairs")
    torch.set_num_threads(arguments.threads)
    logging.disable(logging.WARNING)
    print(f"{timing.cpu_name()}, torch {torch.__version__}\n")
    print("| run | data | figure | float32 | | | difference | detections in both |")
    print("|---|---|---|---|---|---|---|---|")
    for run in runs:
        cfg = launch.load_config(os.path.join(run, "config.yml"), ["OUTPUT_DIR", "", *words[len(runs) :]])
        model = build_detection_model(cfg).to(cfg.MODEL.DEVICE)
        DetectronCheckpointer(cfg, model).load(os.path.join(run, "model_final.pth"), use_latest=False)
        for name, loader in make_test_loaders(cfg).items():
            (_, plain), *others = MODES.items()
            exact, figures = detect(cfg, model, loader, *plain)
            for mode, settings in others:
                found, other_figures = detect(cfg, model, loader, *settings)
                both = f"{agreement(exact, found):.3f} / {agreement(found, exact):.3f}"
                for task, metrics in figures.items():
                    for metric in ("AP", "AP50"):
                        a, b = metrics[metric], other_figures[task][metric]
                        row = f"{task} {metric} | {a:.4f} | {mode} | {b:.4f} | {b - a:+.4f}"
                        print(f"| {os.path.basename(run)} | {name} | {row} | {both} |", flush=True)


if __name__ == "__main__":
    main()
