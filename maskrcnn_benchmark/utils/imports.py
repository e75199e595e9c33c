"""Import a module from a file."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType


def import_file(module_name: str, file_path: str, make_importable: bool = False) -> ModuleType:
    """Run the Python file and return it as module `module_name`.

    This executes the file: give it only paths that the user chose.

    Args:
        make_importable: also let `import module_name` find it.
    """
    spec = importlib.util.spec_from_file_location(module_name, file_path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file_path} cannot be imported: expected the path of a .py file")
    module = importlib.util.module_from_spec(spec)
    if make_importable:
        sys.modules[module_name] = module
    spec.loader.exec_module(module)
    return module
