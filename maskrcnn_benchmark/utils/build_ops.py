"""Command `python -m maskrcnn_benchmark.utils.build_ops`; see native.build_ops."""

import sys

from maskrcnn_benchmark.native.build_ops import main

if __name__ == "__main__":
    sys.exit(main())
