import importlib
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture
def demo_module(monkeypatch):
    """Function demo_module(name): import a module of demo/ as the scripts there do."""
    monkeypatch.syspath_prepend(str(ROOT / "demo"))
    yield lambda name: importlib.import_module(name)
    for name in ("predictor", "webcam"):
        sys.modules.pop(name, None)
