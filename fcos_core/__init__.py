"""The name under which FCOS and VoVNet-FCOS import this package.

`fcos_core.x.y` is the module `maskrcnn_benchmark.x.y` itself, imported when it is first asked for. `fcos_core` is the
package `maskrcnn_benchmark`.
"""

import importlib
import importlib.util
import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec

import maskrcnn_benchmark

ALIAS, PACKAGE = "fcos_core", "maskrcnn_benchmark"


class AliasFinder(MetaPathFinder, Loader):
    """Find `fcos_core.x.y` as `maskrcnn_benchmark.x.y`."""

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
        # It has been executed under its own name. Importing it under another one has replaced its spec.
        module.__spec__ = module.__spec__.loader_state

    def get_code(self, name):
        """Return the code for `python -m fcos_core.x.y`."""
        return importlib.util.find_spec(real_name(name)).loader.get_code(real_name(name))


def real_name(name: str) -> str:
    return PACKAGE + name.removeprefix(ALIAS)


def register_imported() -> None:
    """Give every imported module of the package its second name.

    Python then takes it from sys.modules. Otherwise it would bind the module in its parent once more, in the place of
    a function of the same name: `layers.nms` is a function of the module `layers.nms`.
    """
    for name, module in list(sys.modules.items()):
        if name == PACKAGE or name.startswith(f"{PACKAGE}."):
            sys.modules[ALIAS + name.removeprefix(PACKAGE)] = module


if not any(type(finder).__name__ == AliasFinder.__name__ for finder in sys.meta_path):
    sys.meta_path.insert(0, AliasFinder())  # before the one that finds a second copy by the package's path
sys.modules[ALIAS] = maskrcnn_benchmark
register_imported()
