"""Alias of the package `maskrcnn_benchmark` under the name that programs written for FCOS and VoVNet-FCOS import.

`fcos_core.x.y` is the module `maskrcnn_benchmark.x.y` itself, imported on first use.
"""

import importlib
import importlib.util
import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec

import maskrcnn_benchmark

ALIAS, PACKAGE = "fcos_core", "maskrcnn_benchmark"


class AliasFinder(MetaPathFinder, Loader):
    """Import finder that resolves `fcos_core.x.y` to `maskrcnn_benchmark.x.y`."""

    def find_spec(self, name, path=None, target=None):
        if not name.startswith(f"{ALIAS}."):
            return None
        real = importlib.util.find_spec(real_name(name))
        if real is None:
            return None
        return ModuleSpec(name, self, origin=real.origin, is_package=real.submodule_search_locations is not None)

    def create_module(self, spec):
        module = importlib.import_module(real_name(spec.name))
        spec.loader_state = module.__spec__
        register_imported()
        return module

    def exec_module(self, module):
        # The module has already run under its own name. The import under the alias replaced its spec: restore it.
        module.__spec__ = module.__spec__.loader_state

    def get_code(self, name):
        """Return the code for `python -m fcos_core.x.y`."""
        return importlib.util.find_spec(real_name(name)).loader.get_code(real_name(name))


def real_name(name: str) -> str:
    """Return the name in `maskrcnn_benchmark` of a module of the alias."""
    return PACKAGE + name.removeprefix(ALIAS)


def register_imported() -> None:
    """Register every imported module of the package under its alias in sys.modules.

    Otherwise Python would import the module again and set it as an attribute of its parent, in place of a function of
    the same name. For example, `layers.nms` is a function of the module `layers.nms`.
    """
    for name, module in list(sys.modules.items()):
        if name == PACKAGE or name.startswith(f"{PACKAGE}."):
            sys.modules[ALIAS + name.removeprefix(PACKAGE)] = module


if not any(type(finder).__name__ == AliasFinder.__name__ for finder in sys.meta_path):
    sys.meta_path.insert(0, AliasFinder())  # before the path finder, which would load a second copy of each module
sys.modules[ALIAS] = maskrcnn_benchmark
register_imported()
