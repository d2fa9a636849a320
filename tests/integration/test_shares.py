"""A sweep split by hand: shares in one folder, gathered without training anything again."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pandas as pd
import pytest

from jepa_lab.cli import main
from jepa_lab.sweeps import agreement
from jepa_lab.sweeps.folder import SweepFolder
from jepa_lab.sweeps.gathering import gathered_studies
from jepa_lab.sweeps.plan import load_plan
from jepa_lab.sweeps.results import report_input
from jepa_lab.sweeps.studies import Studies
from jepa_lab.sweeps.study import open_storage, planned_trials
from jepa_lab.sweeps.sweep import sweep_folder
from tests.integration.pipelines import write_tiny
from tests.integration.runs import only_sweep

ABLATION = """\
base: tiny.yaml
overrides: {training.epochs: 1}
arms: {smooth: {}, l2: {loss: l2}}
baseline: smooth
seeds: [0, 1]
metric: probe/validation_accuracy
"""


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of a command in the current folder."""
    try:
        main(list(arguments), standalone_mode=True)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    else:
        code = 0
    return code, *capsys.readouterr()


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_tiny(tmp_path)
    (tmp_path / "a.yaml").write_text(ABLATION)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def trials(root: Path) -> pd.DataFrame:
    folder = only_sweep(root)
    found = report_input(folder, gathered_studies(folder, None)).trials
    return found.sort_values("number", ignore_index=True)


def test_a_share_is_gathered_by_a_report_and_by_the_sweep_that_trains_the_rest(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = run(capsys, "sweep", "a.yaml", "--only", "1-2", "--slots", "1", "--json")
    assert code == 0, out
    done = json.loads(out)
    assert [(each["number"], each["arm"], each["status"]) for each in done["trials"]] == [
        (1, "l2", "FINISHED"), (2, "smooth", "FINISHED"),
    ]  # fmt: skip
    folder = Path(done["folder"])
    code, out, _ = run(capsys, "report", str(folder))
    assert code == 0
    assert "2 trials still running or waiting: this table is not final" in " ".join(out.split())
    before = {path: path.stat().st_mtime_ns for path in folder.glob("trials/*/result.json")}
    assert len(before) == 2
    code, out, _ = run(capsys, "sweep", "a.yaml", "--slots", "1", "--json")  # whoever sweeps the whole gathers, too
    assert code == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert len(list(folder.glob("trials/*/result.json"))) == 4
    found = trials(here / "sweeps")
    assert list(zip(found["arm"], found["seed"], found["status"], strict=True)) == [
        (arm, seed, "FINISHED") for seed in (0, 1) for arm in ("smooth", "l2")
    ]
    assert found["device"].nunique() == 1


def test_a_share_with_other_code_is_refused_and_the_difference_named(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = load_plan(here / "a.yaml")
    folder = SweepFolder.open_or_create(here / "sweeps", plan.folder_name, ABLATION, plan.to_record())
    monkeypatch.setattr(agreement, "__version__", "0.0.9")
    agreement.agree(folder)
    monkeypatch.undo()
    monkeypatch.chdir(here)
    code, _, error = run(capsys, "sweep", "a.yaml", "--only", "0", "--slots", "1")
    assert code == 2
    assert re.search(r"the sweep was started with 0\.0\.9", error)
    assert run(capsys, "sweep", "a.yaml", "--slots", "1")[::2] == (2, error)  # nor may the whole sweep mix them
    assert "To continue with another version on purpose, remove" in error
    assert not list(folder.trials.iterdir())


def test_a_share_whose_trial_fails_says_so_with_its_exit_code(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "a.yaml").write_text(ABLATION.replace("{loss: l2}", "{optimizer.learning_rate: 1.0e+30}"))
    code, out, error = run(capsys, "sweep", "a.yaml", "--only", "1", "--slots", "1")
    assert code == 3
    assert "failed:       l2 seed 0: " in out
    assert "1 of the 1 trials of this share failed" in error


def test_a_trial_that_a_sweep_counted_as_failed_is_finished_once_a_share_has_finished_it(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = load_plan(here / "a.yaml")
    folder = sweep_folder(plan, ABLATION, here / "sweeps")
    study = Studies(open_storage(folder.journal, None), folder.read_plan()).table
    study.enqueue(planned_trials([arm.name for arm in plan.arms], plan.seeds))
    for number in (0, 1):
        study.begin(number)
        study.finish(number, None)
    assert run(capsys, "sweep", "a.yaml", "--only", "1", "--slots", "1")[0] == 0
    found = trials(here / "sweeps")
    assert list(found["status"]) == ["FAILED", "FINISHED", "WAITING", "WAITING"]
    assert found["probe/validation_accuracy"].notna().tolist() == [False, True, False, False]
