"""Convert the weights of a checkpoint to the parameter names of another codebase.

    python tools/convert_checkpoint.py model_final.pth for_detectron2.pth --to detectron2

INPUT may be a checkpoint of maskrcnn-benchmark, FCOS, their VoVNet forks, CenterMask, detectron2, mmdetection 1.x,
VoVNet-DeepLabV3, timm or torchvision, in a file of torch.save, .pkl or .safetensors. OUTPUT is a file of torch.save, or
.safetensors if it has this extension. Solver states are dropped. All other dropped entries are printed.
"""

from __future__ import annotations

import os
import sys

from maskrcnn_benchmark.checkpoint.caffe2 import convert_c2
from maskrcnn_benchmark.checkpoint.checkpointer import read_checkpoint, write_checkpoint
from maskrcnn_benchmark.checkpoint.conversion_targets import TARGETS
from maskrcnn_benchmark.checkpoint.matching import tensors_of
from maskrcnn_benchmark.checkpoint.safetensors_file import write_safetensors
from maskrcnn_benchmark.checkpoint.translation import convert_state_dict, to_ours
from maskrcnn_benchmark.engine import script


def convert(source: str, output: str, to: str, aspect_ratios: int | None = None) -> tuple[int, list[str], list[str]]:
    """Convert `source` to `output`.

    Args:
        source: file to read.
        output: file to write.
        to: name of the dialect of `output`.
        aspect_ratios: see convert_state_dict.

    Returns:
        Number of tensors written, names of the dialects of `source`, and names of the dropped entries.

    Raises:
        FileNotFoundError: there is no `source`.
        ValueError: `source` cannot be read, or the dialect has no names for its tensors.
    """
    if os.path.exists(output) and os.path.samefile(source, output):
        raise ValueError(f"{output} is the file to convert: choose another name for the output")
    state = read_checkpoint(source)["model"]
    if not any("." in str(key) for key in state):  # Caffe2 blobs: conv1_w, res_conv1_bn_s, ...
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
    parser.add_argument("--to", required=True, choices=sorted(TARGETS), help="codebase whose names are written")
    parser.add_argument(
        "--aspect-ratios",
        type=int,
        metavar="N",
        help="number of aspect ratios, if a feature map has anchors of several sizes (default: from the anchors in the "
        "file, else 3)",
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
