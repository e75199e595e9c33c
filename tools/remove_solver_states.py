"""Remove the solver states from a training checkpoint: NAME.pth -> NAME_wo_solver_states.pth.

    python tools/remove_solver_states.py output/model_final.pth

The copy keeps weights, class names and config. It is smaller, and a training that starts from it begins at iteration 0.
"""

from __future__ import annotations

import os
import sys

from maskrcnn_benchmark.checkpoint.files import MARK, marked, write_checkpoint
from maskrcnn_benchmark.checkpoint.safe_unpickle import load_pickled
from maskrcnn_benchmark.engine import script

SOLVER_ENTRIES = (
    "optimizer",
    "scheduler",
    "iteration",
    "scaler",
    "rng_state",
    "best_score",
    "by_the_clock",
    "tested_at",
)


def remove_solver_states(path: str) -> str:
    """Write the copy and return its path.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file cannot be read, or has no solver states.
    """
    checkpoint = load_pickled(path)
    if not isinstance(checkpoint, dict) or "model" not in checkpoint:
        raise ValueError(
            f'{path} has no "model" entry: it is not a training checkpoint, but bare weights or another file'
        )
    removed = [name for name in SOLVER_ENTRIES if name in checkpoint]
    if not removed:
        raise ValueError(f"{path} contains no solver states (its entries: {', '.join(map(str, checkpoint))})")
    stem, extension = os.path.splitext(path)
    stripped = f"{stem}_wo_solver_states{extension}"
    kept = {name: value for name, value in checkpoint.items() if name not in removed}
    write_checkpoint(stripped, marked(kept) if MARK in checkpoint else kept)
    return stripped


def main() -> None:
    parser = script.make_parser(__doc__)
    parser.add_argument("model", metavar="MODEL", help="checkpoint written by tools/train_net.py or by a fork")
    try:
        path = remove_solver_states(parser.parse_args().model)
    except (OSError, ValueError, TypeError) as error:
        sys.exit(f"error: {error}")
    print(f"Done. The model without solver states is saved to {path}")


if __name__ == "__main__":
    script.run(main)
