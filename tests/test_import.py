"""Test what importing the package loads: slow packages are imported only when needed."""

import os
import subprocess
import sys

from conftest import ROOT

SLOW = ("torchvision", "cv2", "matplotlib", "pycocotools", "faster_coco_eval", "sklearn", "scipy", "tensorboard")
CODE = """
import importlib, pkgutil, sys
import maskrcnn_benchmark
assert "torch" not in sys.modules
names = [module.name for module in pkgutil.walk_packages(maskrcnn_benchmark.__path__, "maskrcnn_benchmark.")]
names = [name for name in names if not name.startswith("maskrcnn_benchmark._C")]  # the compiled ops
for name in names:
    importlib.import_module(name)
print(len(names), [name for name in {slow} if name in sys.modules])
"""


def test_no_module_imports_a_slow_package():
    done = subprocess.run(
        [sys.executable, "-c", CODE.format(slow=SLOW)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    number, imported = done.stdout.split(maxsplit=1)
    assert int(number) > 100
    assert imported.strip() == "[]"
