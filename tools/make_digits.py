"""Write the embedded default dataset (handwritten digits on photographs), see maskrcnn_benchmark/data/digits.py."""

from __future__ import annotations

import sys

from maskrcnn_benchmark.data.digits import make_digits, write_scene
from maskrcnn_benchmark.engine import script


def main() -> int:
    parser = script.make_parser(__doc__)
    parser.add_argument("--output", default="datasets/digits", help="folder to write (default: %(default)s)")
    parser.add_argument("--train", type=int, default=2000, help="number of training images (default: %(default)s)")
    parser.add_argument("--test", type=int, default=200, help="number of test images (default: %(default)s)")
    parser.add_argument("--size", type=int, default=160, help="side of an image in pixels (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="random seed (default: %(default)s)")
    parser.add_argument(
        "--scene", metavar="FILE.jpg", help="write only one test image, and its objects next to it as FILE.json"
    )
    args = parser.parse_args()

    def progress(done: int, total: int) -> None:
        if sys.stderr.isatty() and (done % 20 == 0 or done == total):
            end = "\n" if done == total else ""
            print(f"\rcomposing images: {done}/{total}", end=end, file=sys.stderr, flush=True)

    try:
        if args.scene:
            write_scene(args.scene, args.size, args.seed)
            print(f"{args.scene}: a test image of {args.size}x{args.size}")
            return 0
        written = make_digits(args.output, args.train, args.test, args.size, args.seed, progress)
    except (FileExistsError, ImportError, ValueError) as error:
        parser.exit(1, f"{parser.prog}: {error}\n")
    images = f"{args.train} training and {args.test} test images of {args.size}x{args.size}"
    print(f"{args.output}: {images}" + ("" if written else ", already there"))
    return 0


if __name__ == "__main__":
    script.run(main)
