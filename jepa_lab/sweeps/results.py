"""What a sweep has found so far, read from its folder and its study: the input of its report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from jepa_lab.errors import RunFolderError
from jepa_lab.reports.content import ReportInput
from jepa_lab.sweeps.folder import SweepFolder
from jepa_lab.sweeps.study import TableStudy
from jepa_lab.sweeps.trials import TrialRecord, curves_frame, trials_frame
from jepa_lab.tracking.run_folder import RunFolder


def open_study(storage: BaseStorage, plan: Mapping[str, Any]) -> TableStudy:
    """The study of a plan.

    Args:
        plan: content of plan.json.
    """
    return TableStudy(storage, plan["name"], plan["direction"], tuple(plan["arms"]), plan["seeds"])


def report_input(folder: SweepFolder, study: TableStudy) -> ReportInput:
    """Everything that the report of a sweep shows.

    Raises:
        RunFolderError: a file of the sweep or of a trial is damaged.
    """
    plan = folder.read_plan()
    records = [_record(folder, plan, study, trial) for trial in study.trials()]
    baseline = plan["arms"][plan["baseline"]]["values"]
    changed = {
        name: {key: _shown(value) for key, value in arm["values"].items() if value != baseline[key]}
        for name, arm in plan["arms"].items()
    }
    return ReportInput(
        title=plan["name"],
        kind=plan["kind"],
        baseline=plan["baseline"],
        arms=tuple(plan["arms"]),
        changed=changed,
        metric=plan["metric"],
        higher_is_better=plan["direction"] == "maximize",
        seeds=tuple(plan["seeds"]),
        notes=_notes(folder),
        trials=trials_frame(records),
        curves=curves_frame(records),
    )


def _shown(value: object) -> str:
    return "absent" if value is None else str(value)


def _record(folder: SweepFolder, plan: Mapping[str, Any], study: TableStudy, trial: FrozenTrial) -> TrialRecord:
    planned = study.planned(trial)
    found = trial.user_attrs.get("run_folder")
    return TrialRecord(
        number=trial.number,
        arm=planned.arm,
        seed=planned.seed,
        status=_status(trial),
        role=planned.role,
        values=plan["arms"][planned.arm]["values"],
        folder=None if found is None else RunFolder(folder.path / found),
        error=trial.user_attrs.get("error"),
    )


def _status(trial: FrozenTrial) -> str:
    if trial.state == TrialState.COMPLETE:
        return "COLLAPSED" if trial.user_attrs.get("collapsed") else "FINISHED"
    return {"FAIL": "FAILED"}.get(trial.state.name, trial.state.name)


def _notes(folder: SweepFolder) -> tuple[str, ...]:
    """The conditions of the numbers: machine, versions, commit."""
    try:
        environment = folder.record.read_environment()
    except RunFolderError as error:
        return (str(error),)
    packages = ", ".join(f"{name} {version}" for name, version in environment["packages"].items())
    git = environment["git"]
    commit = "" if git is None else f", commit {git['commit'][:12]}{' with changes' if git['dirty'] else ''}"
    return (
        f"jepa-lab {environment['jepa_lab']}{commit}; Python {environment['python']}, {packages}",
        f"{environment['cpu_model']}, {environment['cpu_count']} cores; device {environment['device']}",
    )
