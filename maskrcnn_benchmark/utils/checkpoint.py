"""Import path of the forks; see checkpoint.checkpointer."""

from maskrcnn_benchmark.checkpoint.checkpointer import (  # noqa: F401
    Checkpointer,
    DetectronCheckpointer,
    read_checkpoint,
    write_checkpoint,
)
