"""`tracking: none` on a machine that has neither MLflow nor Optuna nor SQLAlchemy."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.integration.pipelines import write_tiny

WITHOUT = """\
import sys
for name in ("mlflow", "optuna", "sqlalchemy", "alembic"):
    sys.modules[name] = None
from jepa_lab.cli import main
main()
"""


def jepa_lab(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", WITHOUT, *arguments], capture_output=True, text=True, check=False, cwd=folder
    )


def test_a_run_without_a_tracker_needs_none_of_their_packages(tmp_path: Path) -> None:
    write_tiny(tmp_path)
    done = jepa_lab(tmp_path, "run", "tiny.yaml", "training.epochs=1")
    assert done.returncode == 0, done.stderr
    (run,) = (tmp_path / "runs").iterdir()
    again = jepa_lab(tmp_path, "probe", str(run), "probe.encoder=context")
    assert again.returncode == 0, again.stderr


def test_a_run_with_a_tracker_names_the_package_that_is_missing(tmp_path: Path) -> None:
    write_tiny(tmp_path)
    done = jepa_lab(tmp_path, "run", "tiny.yaml", "tracking=mlflow")
    assert done.returncode == 2
    assert "which is not installed" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "runs").exists()
