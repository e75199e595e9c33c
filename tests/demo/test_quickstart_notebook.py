import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
NOTEBOOK = ROOT / "demo" / "quickstart.ipynb"


def code_cells(notebook) -> list[dict]:
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def texts(cells) -> str:
    return "".join("".join(output.get("text", "")) for cell in cells for output in cell["outputs"])


def count_images(cells) -> int:
    data = [output.get("data", {}) for cell in cells for output in cell["outputs"]]
    return sum("image/jpeg" in each or "image/png" in each for each in data)


def test_committed_notebook_was_run_from_top_to_bottom():
    cells = code_cells(json.loads(NOTEBOOK.read_text(encoding="utf-8")))
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert not [output for cell in cells for output in cell["outputs"] if output["output_type"] == "error"]
    assert count_images(cells) == 4 and "box AP50" in texts(cells)


def test_committed_notebook_is_small_and_names_no_folder_of_its_author():
    assert NOTEBOOK.stat().st_size < 400_000
    cells = code_cells(json.loads(NOTEBOOK.read_text(encoding="utf-8")))
    assert not re.search(r"/(home|tmp|root|Users|work)/", texts(cells))


@pytest.mark.slow
def test_notebook_runs_from_top_to_bottom(tmp_path, monkeypatch):
    for name in ("ipykernel", "matplotlib", "sklearn"):
        pytest.importorskip(name)
    nbclient = pytest.importorskip("nbclient")
    nbformat = pytest.importorskip("nbformat")
    monkeypatch.setenv("QUICKSTART_FOLDER", str(tmp_path / "run"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.delenv("QUICKSTART_ITERATIONS", raising=False)
    notebook = nbformat.read(NOTEBOOK, 4)
    resources = {"metadata": {"path": str(NOTEBOOK.parent)}}
    nbclient.NotebookClient(notebook, timeout=3600, kernel_name="python3", resources=resources).execute()
    cells = code_cells(notebook)
    assert count_images(cells) == 4
    assert float(re.search(r"box AP50 *([\d.]+)", texts(cells))[1]) > 0.7
