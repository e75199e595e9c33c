"""Write the weights of a checkpoint under the names of another program.

    python tools/convert_checkpoint.py model_final.pth for_detectron2.pth --to detectron2

Reads every dialect that training and testing read: maskrcnn-benchmark's, FCOS's and their VoVNet forks', detectron2's
(.pth and .pkl), mmdetection 1.x's, VoVNet-DeepLabV3's, timm's and torchvision's, as files of torch.save, .pkl or
.safetensors. An OUTPUT that ends with .safetensors becomes one. Solver states stay behind; what else is left out is
printed.
"""

from __future__ import annotations

import os
import sys

from maskrcnn_benchmark.checkpoint.caffe2 import convert_c2
from maskrcnn_benchmark.checkpoint.checkpointer import read_checkpoint, write_checkpoint
from maskrcnn_benchmark.checkpoint.dialects import TARGETS
from maskrcnn_benchmark.checkpoint.matching import tensors_of
from maskrcnn_benchmark.checkpoint.safetensors_file import write_safetensors
from maskrcnn_benchmark.checkpoint.translation import convert_state_dict, to_ours
from maskrcnn_benchmark.engine import script


def convert(source: str, output: str, to: str, aspect_ratios: int | None = None) -> tuple[int, list[str], list[str]]:
    """Write `output`; return how many tensors it has, the dialects of `source` and what was left out.

    Args:
        aspect_ratios: see convert_state_dict.

    Raises:
        FileNotFoundError, ValueError: the file can't be read, or the dialect has no names for what is in it.
    """
    if os.path.exists(output) and os.path.samefile(source, output):
        raise ValueError(f"{output} is the file to convert: give the result another name")
    state = read_checkpoint(source)["model"]
    if not any("." in str(key) for key in state):  # Caffe2's blobs: conv1_w, res_conv1_bn_s, ...
        state = convert_c2(state.get("blobs", state))
    tensors = tensors_of(state)
    try:
        converted, left_out = convert_state_dict(tensors, to, aspect_ratios)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error
    converted = {TARGETS[to].prefix + name: tensor for name, tensor in converted.items()}
    if output.endswith(".safetensors"):
        write_safetensors(output, converted)
    else:
        entry = TARGETS[to].entry
        write_checkpoint(output, {entry: converted} if entry else converted)
    dialects = to_ours(tensors, aspect_ratios=aspect_ratios).dialects
    return len(converted), [dialect.name for dialect in dialects], left_out


def main() -> None:
    parser = script.make_parser(__doc__)
    parser.add_argument("source", metavar="INPUT", help="checkpoint or weights in any dialect")
    parser.add_argument("output", metavar="OUTPUT", help="file to write: NAME.pth or NAME.safetensors")
    parser.add_argument("--to", required=True, choices=sorted(TARGETS), help="whose names to write")
    parser.add_argument(
        "--aspect-ratios",
        type=int,
        metavar="N",
        help="aspect ratios of the anchors, if a map has several sizes; default: by the file's anchors, else 3",
    )
    args = parser.parse_args()
    try:
        count, dialects, left_out = convert(args.source, args.output, args.to, args.aspect_ratios)
    except (OSError, ValueError, TypeError) as error:
        sys.exit(f"error: {error}")
    origin = ", ".join(dialects) or "maskrcnn_benchmark"
    print(f"{count} tensors of {args.source} ({origin}) written to {args.output} ({args.to})")
    for name in left_out:
        print(f"left out: {name}")


if __name__ == "__main__":
    script.run(main)
