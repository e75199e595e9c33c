"""Build the ops while the package is installed; metadata is in pyproject.toml.

torch is not imported and not a build requirement (see maskrcnn_benchmark/native/build_ops.py): pip would download a
second one into its sandbox. An op library that cannot be built does not fail the installation.
"""

import importlib.util
import shutil
import sys
from pathlib import Path

from setuptools import Distribution, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
NAME = "maskrcnn_benchmark"


def load_build_ops():
    """Load the module by its path: importing the package would need packages that pip's sandbox lacks."""
    spec = importlib.util.spec_from_file_location("build_ops", ROOT / NAME / "native" / "build_ops.py")
    module = sys.modules["build_ops"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class BuildPackage(build_py):
    """Copies the package, then builds the ops into it: into the checkout when the installation is editable."""

    def run(self):
        super().run()
        target = ROOT / NAME
        if not self.editable_mode:
            target = Path(self.build_lib) / NAME
            # the sources travel along, so that build_ops can build after the installation
            shutil.rmtree(target / "csrc", ignore_errors=True)
            shutil.copytree(ROOT / "csrc", target / "csrc")
        build_ops = load_build_ops()
        report = build_ops.build(target=target, sources=ROOT / "csrc", if_changed=True)
        print(build_ops.describe(report))


class Wheel(bdist_wheel):
    """One wheel for every Python 3 of a platform: the libraries use no Python API."""

    def get_tag(self):
        return "py3", "none", super().get_tag()[2]


class WithLibraries(Distribution):
    def has_ext_modules(self):
        return True


setup(cmdclass={"build_py": BuildPackage, "bdist_wheel": Wheel}, distclass=WithLibraries)
