"""Run a user's own set-up code before anything else.

The environment variable TORCH_DETECTRON_ENV_MODULE may name a Python file. Its function `setup_environment()` is called
when this module is first imported. The scripts in tools/ import it before the rest.
"""

from __future__ import annotations

import os

from .imports import import_file

VARIABLE = "TORCH_DETECTRON_ENV_MODULE"


def setup_environment() -> None:
    """Call `setup_environment()` of the file that the variable names; do nothing if it is unset."""
    path = os.environ.get(VARIABLE)
    if not path:
        return
    module = import_file("maskrcnn_benchmark.utils.env.custom_module", path)
    if not callable(getattr(module, "setup_environment", None)):
        raise AttributeError(
            f"{VARIABLE} names {path}, which has no function setup_environment(). Define one or unset the variable."
        )
    module.setup_environment()


setup_environment()
