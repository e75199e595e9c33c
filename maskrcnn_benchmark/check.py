"""Check an installation: run the models of the package on its image.

    python -m maskrcnn_benchmark.check

Needs no download and no checkout. The exit status is 1 if a model does not find what is in the image.
"""

from __future__ import annotations

import os
import platform
import time

import torch

from maskrcnn_benchmark import __version__
from maskrcnn_benchmark.checkpoint.shipped import ShippedModel, shipped_models
from maskrcnn_benchmark.data.sample import sample_image, sample_objects
from maskrcnn_benchmark.engine import script
from maskrcnn_benchmark.engine.prediction import Prediction
from maskrcnn_benchmark.engine.predictor import Predictor
from maskrcnn_benchmark.evaluation.matching import count_matches
from maskrcnn_benchmark.native import build_ops, library
from maskrcnn_benchmark.structures.bounding_box import BoxList


def installation() -> str:
    """Describe the versions and the compiled ops in a few lines."""
    versions = f"Python {platform.python_version()}, torch {torch.__version__}"
    lines = [f"maskrcnn_benchmark {__version__} in {build_ops.PACKAGE}, {versions}"]
    if library.LOADED:
        lines.append(f"compiled ops: {', '.join(kind.upper() for kind in library.LOADED)}")
    else:
        lines.append(f"compiled ops: none, slower PyTorch code runs instead: {library.REASONS['cpu']}")
        lines.append(f"to build them: {build_ops.COMMAND}")
    return "\n".join(lines)


def check_model(model: ShippedModel, device: str | None = None) -> tuple[Prediction, bool, str]:
    """Run a model of the package on the sample image, and compare the detections with its objects.

    A detection is right if its class is that of an object, and its IoU with it is at least 0.5.

    Args:
        model: an entry of `shipped_models`.
        device: "cpu", "cuda", "cuda:N"; None is the model's own.

    Returns:
        The detections, whether they are exactly the objects in the image, and a line about them.
    """
    predictor = Predictor.from_zoo(model.name, device=device)
    start = time.perf_counter()
    prediction = predictor(sample_image())
    milliseconds = (time.perf_counter() - start) * 1000
    objects = sample_objects()
    boxes = torch.tensor([box for _, box in objects], dtype=torch.float32)
    truth = BoxList(boxes, prediction.size, mode="xywh").convert("xyxy")
    truth.add_field("labels", torch.tensor([model.class_names.index(name) + 1 for name, _ in objects]))
    right = count_matches(truth, prediction.to_boxlist()) == len(objects) == len(prediction)
    found = ", ".join(f"{name} ({score:.2f})" for name, score in zip(prediction.names, prediction.scores, strict=True))
    line = f"{model.name} on {predictor.device}: found {found or 'nothing'} in {milliseconds:.0f} ms"
    if not right:
        line += f"; WRONG: the image has {', '.join(name for name, _ in objects)}"
    return prediction, right, line


def main() -> int:
    parser = script.make_parser(__doc__)
    parser.add_argument("--device", help="cpu, cuda or cuda:N (default: %(default)s)", default="cpu")
    parser.add_argument("--output", metavar="FILE", help="image to write, with what the last model found")
    args = parser.parse_args()
    print(installation())
    models = shipped_models()
    right = True
    for model in models.values():
        prediction, as_expected, line = check_model(model, args.device)
        print(line)
        right &= as_expected
    if args.output:
        prediction.save(args.output)
        print(f"written: {os.path.abspath(args.output)}")
    print("The installation works." if right else "The installation does NOT work: a model does not find the digits.")
    return 0 if right else 1


if __name__ == "__main__":
    script.run(main)
