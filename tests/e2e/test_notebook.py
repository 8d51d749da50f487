"""docs/carsearch.ipynb: it runs from top to bottom, and what it shows on the web is not too large."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.support.servers import clean_environment
from tests.unit.test_layout import ROOT

NOTEBOOK = ROOT / "docs" / "carsearch.ipynb"
MAX_BYTES = 300_000


def shown_by(notebook: dict[str, Any], code: str) -> dict[str, Any]:
    """What the cell that ends with this code shows: kind of data -> data."""
    (cell,) = (cell for cell in notebook["cells"] if "".join(cell["source"]).endswith(code))
    shown: dict[str, Any] = cell["outputs"][-1]["data"]
    return shown


def test_the_notebook_runs_from_top_to_bottom(tmp_path: Path) -> None:
    copy = Path(shutil.copy(NOTEBOOK, tmp_path))
    environment = {**clean_environment(), "PYTHONPATH": str(ROOT), "IPYTHONDIR": str(tmp_path / "ipython")}
    for name in ("CONFIG", "DATA", "RUNTIME"):
        environment[f"JUPYTER_{name}_DIR"] = str(tmp_path / "jupyter")
    program = Path(sys.executable).parent / "jupyter-execute"
    done = subprocess.run(
        [program, "--inplace", copy], env=environment, capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stderr
    made = json.loads(copy.read_text(encoding="utf-8"))
    assert "".join(shown_by(made, "\nhits")["text/html"]).count('<img src="data:image/jpeg;base64,') == 5
    assert "image/jpeg" in shown_by(made, "index.explain(photo, hits[0].id)")
    assert "<th>top-1</th>" in "".join(shown_by(made, "\nevaluation")["text/html"])


def test_the_notebook_is_kept_with_its_pictures_and_is_small() -> None:
    kept = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert "text/html" in shown_by(kept, "\nhits")
    assert NOTEBOOK.stat().st_size <= MAX_BYTES
