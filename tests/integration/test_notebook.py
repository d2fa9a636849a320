"""The notebook of the documentation runs from its first cell to its last, and is stored with its figures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "docs" / "first_evening.ipynb"
EXECUTE = (
    "import sys, nbformat, nbclient; notebook = nbformat.read(sys.argv[1], 4); "
    "nbclient.NotebookClient(notebook, timeout=600, resources={'metadata': {'path': '.'}}).execute(); "
    "nbformat.write(notebook, sys.argv[2])"
)


def kinds_of_outputs(notebook: dict[str, Any]) -> list[set[str]]:
    """Of each code cell: kinds of output, such as image/png."""
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    return [
        {kind for output in cell["outputs"] for kind in output.get("data", [output["output_type"]])} for cell in cells
    ]


def test_every_cell_runs_and_gives_the_kinds_of_output_that_are_stored(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", EXECUTE, NOTEBOOK, tmp_path / "executed.ipynb"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    executed = json.loads((tmp_path / "executed.ipynb").read_text())
    stored = json.loads(NOTEBOOK.read_text())
    assert kinds_of_outputs(executed) == kinds_of_outputs(stored)
    assert sum("image/png" in kinds for kinds in kinds_of_outputs(stored)) == 2


def test_the_stored_notebook_names_no_place_of_the_machine_that_ran_it() -> None:
    text = NOTEBOOK.read_text()
    assert not any(each in text for each in ("/home/", "/root/", "/tmp/", "/work/", "site-packages"))
