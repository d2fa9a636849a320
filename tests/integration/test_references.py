"""`references:` of an ablation file, in whole sweeps."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest

from jepa_lab.composition.start import start_run
from jepa_lab.config.loading import load_pipeline
from jepa_lab.sweeps.folder import SweepFolder
from jepa_lab.sweeps.references import kept_references
from jepa_lab.tracking.run_folder import RunFolder
from tests.integration.pipelines import write_tiny
from tests.integration.test_cli import invoke, refused

METRIC = "probe/validation_accuracy"
ABLATION = """\
name: referenced
base: ../tiny.yaml
overrides: {training.epochs: 1}
one_at_a_time: {loss: [l2]}
references: [../runs/big]
seeds: [0, 1]
"""


def test_a_run_stands_in_the_table_of_a_sweep_and_stays_there_when_it_is_gone(tmp_path: Path) -> None:
    pipeline = write_tiny(tmp_path)
    run = start_run(load_pipeline(pipeline, ["training.epochs=2"]), tmp_path / "runs", []).folder
    own = run.read_result()
    assert own is not None
    run.path.rename(tmp_path / "runs" / "big")
    file = tmp_path / "ablations" / "referenced.yaml"
    file.parent.mkdir()
    file.write_text(ABLATION)
    command = ("sweep", file, "--sweeps", tmp_path / "sweeps", "--slots", "1")
    done = invoke(*command)
    assert done.exit_code == 0, done.output
    assert "probing the reference ../runs/big" in done.output
    (folder,) = (tmp_path / "sweeps").iterdir()
    line = pd.read_csv(folder / "report" / "table.csv").set_index("arm").loc["../runs/big"]
    # The same probe on the same images: what the run's own probe found.
    assert (line["role"], line["n"], line["mean"]) == ("reference", 1, pytest.approx(own["metrics"][METRIC]))
    assert pd.isna(line["p_holm"])
    assert pd.notna(line["difference"])
    assert "reference (not trained here): ../runs/big" in (folder / "report" / "table.md").read_text()
    (kept,) = kept_references(folder, (0, 1))
    assert set(kept.scored(METRIC)) == {0, 1}
    assert kept.values("probe/test_accuracy") == dict.fromkeys((0, 1), own["metrics"]["probe/test_accuracy"])

    shutil.rmtree(tmp_path / "runs")
    again = invoke(*command)
    assert again.exit_code == 0, again.output
    assert "probing the reference" not in again.output
    assert pd.read_csv(folder / "report" / "table.csv").set_index("arm").loc["../runs/big", "mean"] == line["mean"]
    assert len(list(SweepFolder(folder).trials.iterdir())) == 4
    assert RunFolder(folder).read_result() is not None


def test_what_cannot_be_read_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    write_tiny(tmp_path)
    file = tmp_path / "ablations" / "referenced.yaml"
    file.parent.mkdir()
    file.write_text(ABLATION)
    (tmp_path / "runs" / "big").mkdir(parents=True)
    for options in ((), ("--dry-run",)):
        message = refused("sweep", file, "--sweeps", tmp_path / "sweeps", *options)
        assert f"error: {file}:5: reference '../runs/big': {tmp_path}/runs/big is not a run" in message
    assert not (tmp_path / "sweeps").exists()
