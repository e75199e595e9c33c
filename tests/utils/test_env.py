import os
import subprocess
import sys

import pytest

from maskrcnn_benchmark.utils import env
from maskrcnn_benchmark.utils.imports import import_file


def test_user_file_runs_at_import(tmp_path):
    (tmp_path / "mine.py").write_text("def setup_environment():\n    print('set up by', __name__)\n")
    run = subprocess.run(
        [sys.executable, "-c", "import maskrcnn_benchmark.utils.env"],
        env={**os.environ, env.VARIABLE: str(tmp_path / "mine.py")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout == "set up by maskrcnn_benchmark.utils.env.custom_module\n"


def test_user_file_without_the_function_is_refused(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text("")
    monkeypatch.setenv(env.VARIABLE, str(tmp_path / "mine.py"))
    with pytest.raises(AttributeError, match="no function setup_environment"):
        env.setup_environment()


def test_import_file_makes_a_module_importable_on_demand(tmp_path):
    (tmp_path / "some.py").write_text("value = 3\n")
    assert import_file("test_env_some", str(tmp_path / "some.py")).value == 3
    assert "test_env_some" not in sys.modules
    import_file("test_env_some", str(tmp_path / "some.py"), make_importable=True)
    assert sys.modules.pop("test_env_some").value == 3


def test_import_file_requires_a_python_file(tmp_path):
    with pytest.raises(ImportError, match=r"\.py"):
        import_file("anything", str(tmp_path / "words.txt"))
