"""Put a trained model into the package: its weights in half precision, measured, and a JSON file about them.

    python tools/ship_weights.py output/digits_fcos/model_final.pth --name digits_fcos

`make tiny-models` trains the package's models and calls this. The figures are those of the half-precision file on
DATASETS.TEST of the training, computed in float32.
"""

from __future__ import annotations

import datetime
import os
import platform
import tempfile

import torch

from maskrcnn_benchmark.checkpoint import shipped
from maskrcnn_benchmark.checkpoint.checkpointer import DetectronCheckpointer, read_checkpoint
from maskrcnn_benchmark.config import cfg as default_cfg
from maskrcnn_benchmark.config.changes import changes
from maskrcnn_benchmark.config.paths_catalog import DatasetCatalog
from maskrcnn_benchmark.engine import script
from maskrcnn_benchmark.engine.predictor_setup import config_of
from maskrcnn_benchmark.engine.testing import make_test_loaders, run_test
from maskrcnn_benchmark.evaluation import load_predictions
from maskrcnn_benchmark.evaluation.matching import balancing_score
from maskrcnn_benchmark.modeling.detector import build_detection_model

# One-line summaries of the package's models.
SUMMARIES = {
    "digits_fcos": "FCOS with a quarter-width VoVNet: finds handwritten digits",
    "digits_mask_rcnn": "Mask R-CNN with a quarter-width VoVNet: finds handwritten digits and their strokes",
}
DATA = "handwritten digits on photographs (python tools/make_digits.py): 2,000 training and 200 test scenes"
LICENCE = (
    "MIT. Trained on what scikit-learn (BSD-3-Clause) distributes: the handwritten digits of E. Alpaydin and C. Kaynak "
    "(UCI, CC BY 4.0), and photographs by danielbuechele and vultilion (CC BY 2.0)"
)
METRICS = {"bbox": "box", "segm": "mask"}


def measure(cfg, path) -> tuple[dict[str, float], float]:
    """Test the weights in a file on DATASETS.TEST; return the figures, and the score with the highest F1.

    Args:
        cfg: a configuration without weights. The test writes to its OUTPUT_DIR.
        path: file with the weights.
    """
    model = build_detection_model(cfg).to(cfg.MODEL.DEVICE)
    checkpointer = DetectronCheckpointer(cfg, model)
    checkpointer.load(path, use_latest=False)
    loaders = make_test_loaders(cfg)
    if len(loaders) != 1:
        raise ValueError(f"DATASETS.TEST has {len(loaders)} datasets: figures are those of one")
    outcome = run_test(cfg, model, loaders)
    ((name, loader),) = loaders.items()
    figures = {}
    for task, word in METRICS.items():
        for metric in ("AP50", "AP"):
            value = outcome.figures.get(f"{name}/{task}/{metric}")
            if value is not None:
                figures[f"{word} {metric}"] = round(float(value), 4)
    predictions = load_predictions(os.path.join(cfg.OUTPUT_DIR, "inference", name, "predictions.pth"))
    pairs = []
    for index, prediction in enumerate(predictions):
        truth = loader.dataset.get_groundtruth(index).copy_with_fields("labels")
        pairs.append((truth, prediction and prediction.copy_with_fields(("labels", "scores")).resize(truth.size)))
    best = balancing_score(pairs)
    if best is None:
        raise ValueError(f"{path} finds no object of {name}: nothing to ship")
    # rounded down, so that the printed number keeps the same predictions
    return figures, int(best.score * 1000) / 1000


def ship(checkpoint_file: str, name: str, folder, summary: str, command: str) -> shipped.ShippedModel:
    """Write both files of a model and return its description.

    Args:
        checkpoint_file: checkpoint of tools/train_net.py.
        name: name of the model.
        folder: folder for the files.
        summary, command: see ShippedModel.

    Raises:
        ValueError, OSError: the checkpoint is not one of tools/train_net.py, or its test data are missing.
    """
    checkpoint = read_checkpoint(checkpoint_file)
    cfg = config_of(checkpoint, checkpoint_file)
    # The same figures on every CPU; the model is so small that bfloat16 saves nothing.
    cfg.merge_from_list(["DTYPE", "float32", "MODEL.WEIGHT", ""])
    with tempfile.TemporaryDirectory() as output:  # the files of an earlier training stay until the new one is measured
        measured = cfg.clone()
        measured.OUTPUT_DIR = output
        figures, score = measure(measured, str(shipped.write_weights(name, checkpoint["model"], output)))
    path = shipped.write_weights(name, checkpoint["model"], folder)
    (entry,) = cfg.DATASETS.TEST
    cfg.OUTPUT_DIR = default_cfg.OUTPUT_DIR
    model = shipped.ShippedModel(
        name=name,
        path=path,
        summary=summary,
        parameters=sum(parameter.numel() for parameter in build_detection_model(cfg).parameters()),
        sha256=shipped.sha256_of(path),
        class_names=tuple(checkpoint["class_names"]),
        category_ids=tuple(checkpoint["category_ids"]),
        score_threshold=score,
        figures=figures,
        data=f"{DATA}; figures are those of {DatasetCatalog.name(entry)}",
        command=command,
        date=datetime.date.today().isoformat(),
        made_with=f"torch {torch.__version__}, Python {platform.python_version()}, seed {cfg.SEED}",
        licence=LICENCE,
        config=changes(cfg, default_cfg),
    )
    shipped.write_description(model)
    return model


def main() -> None:
    parser = script.make_parser(__doc__)
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="of tools/train_net.py")
    parser.add_argument("--name", required=True, choices=sorted(SUMMARIES), help="of the model")
    parser.add_argument(
        "--output", default=shipped.FOLDER, metavar="FOLDER", help="folder to write to (default: the package's)"
    )
    parser.add_argument("--command", default="make tiny-models", help="how it was trained (default: %(default)s)")
    args = parser.parse_args()
    model = ship(args.checkpoint, args.name, args.output, SUMMARIES[args.name], args.command)
    figures = ", ".join(f"{metric} {value:.3f}" for metric, value in model.figures.items())
    print(f"{model.path}: {model.parameters:,} parameters, {model.path.stat().st_size:,} bytes; {figures}")


if __name__ == "__main__":
    script.run(main)
