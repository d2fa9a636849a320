"""What a sweep has found so far, read from its folder and its studies: the input of its report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd
from optuna.trial import FrozenTrial, TrialState

from jepa_lab.config.loading import load_pipeline
from jepa_lab.errors import RunFolderError
from jepa_lab.reports.changes import changed_keys
from jepa_lab.reports.content import HAS_RESULT, Reference, ReportInput, SearchInput
from jepa_lab.resume import run_stem
from jepa_lab.sweeps.folder import SweepFolder
from jepa_lab.sweeps.references import read_references
from jepa_lab.sweeps.search_sweep import fresh_seeds, point_name
from jepa_lab.sweeps.studies import Studies
from jepa_lab.sweeps.study import PlannedTrial, TableStudy
from jepa_lab.sweeps.trial_runs import TrialRuns
from jepa_lab.sweeps.trials import TrialRecord, curves_frame, predictions_of, probe_notes_frame, trials_frame
from jepa_lab.tracking.environment import environment_in_words
from jepa_lab.tracking.run_folder import RunFolder


def report_input(folder: SweepFolder, studies: Studies) -> ReportInput:
    """Everything that the report of a sweep shows.

    Raises:
        RunFolderError: a file of the sweep or of a trial is damaged.
    """
    plan = folder.read_plan()
    if plan["search"] is not None:
        return _search_input(folder, plan, studies)
    arms = {name: arm["values"] for name, arm in plan["arms"].items()}
    return _input(folder, plan, arms, list(_records_of_table(folder, studies.table, arms)), tuple(plan["seeds"]), None)


def _input(
    folder: SweepFolder,
    plan: Mapping[str, Any],
    arms: Mapping[str, Mapping[str, Any]],
    records: list[TrialRecord],
    seeds: tuple[int, ...],
    search: SearchInput | None,
) -> ReportInput:
    """The input of a report.

    Args:
        arms: the lines of the table with the value of every swept key.
    """
    baseline = arms[plan["baseline"]]
    changed = {name: changed_keys(values, baseline) for name, values in arms.items()}
    references = read_references(folder, plan, seeds)
    return ReportInput(
        title=plan["name"],
        kind=plan["kind"],
        baseline=plan["baseline"],
        arms=tuple(arms),
        changed=changed,
        metric=plan["metric"],
        higher_is_better=plan["direction"] == "maximize",
        seeds=seeds,
        notes=(*conditions(plan, records, seeds), *_about(references), *_notes(folder, records)),
        trials=trials_frame(records),
        curves=curves_frame(records),
        search=search,
        probe_notes=probe_notes_frame(records),
        predictions=predictions_of(records),
        split_seeds=tuple(plan["split_seeds"]) if "split_seeds" in plan else None,
        references=references,
    )


def conditions(plan: Mapping[str, Any], records: Iterable[TrialRecord], seeds: Sequence[int]) -> tuple[str, ...]:
    """Data with the sizes of its splits, model, length of training and seeds, in words.

    Args:
        plan: content of plan.json. seeds: of the table.
    """
    config = plan["baseline_config"]
    images = next((found for found in map(_images, records) if found), {})
    data = f"Data: {config['data.dataset.name']} at {config['data.image_size']} px"
    notes = [f"{data}{'; ' if 'images' in images else ''}{images.get('images', '')}."]
    if "probe_images" in images:
        notes.append(f"Images of the probe: {images['probe_images']}.")
    model = f"{plan['model']}; " if "model" in plan else ""  # an older plan does not say it
    trained = f"{config['training.epochs']} epochs of batches of {config['training.batch_size']}"
    notes.append(f"The baseline: {model}{trained}; seeds {', '.join(map(str, seeds))}.")
    return tuple(notes)


def _about(references: Iterable[Reference]) -> list[str]:
    """Where the references come from, and what had to be done to probe them."""
    return [
        f"Reference {each.name}{f' ({each.source})' if each.source != each.name else ''}: "
        f"{'; '.join(each.notes) if each.splits else 'not probed yet'}."
        for each in references
        if each.notes or each.source != each.name or not each.splits
    ]


def _images(record: TrialRecord) -> dict[str, str]:
    """How many images a trial that ended had, in words; empty where nothing says it."""
    if record.folder is None or record.status not in HAS_RESULT:
        return {}
    try:
        result = record.folder.read_result() or {}
    except RunFolderError:
        return {}
    return {key: result[key]["in_words"] for key in ("images", "probe_images") if key in result}


def _search_input(folder: SweepFolder, plan: Mapping[str, Any], studies: Studies) -> ReportInput:
    """The input for a search: its points, the best on the other seeds, winner and baseline on fresh ones."""
    search = studies.search
    parameters = tuple(plan["search"]["parameters"])
    arms: dict[str, Mapping[str, Any]] = {plan["baseline"]: plan["arms"][plan["baseline"]]["values"]}
    arms |= {point_name(trial.number): {key: trial.params.get(key) for key in parameters} for trial in search.trials()}
    records = [
        _record(folder, trial, PlannedTrial(point_name(trial.number), plan["seeds"][0], "search"), arms)
        for trial in search.trials()
    ]
    winner = None
    if studies.has("confirm"):
        records += _records_of_table(folder, studies.after_any("confirm"), arms)
    if studies.has("final"):
        final = studies.after_any("final")
        winner = next(name for name in final.arms() if name != plan["baseline"])
        records += _records_of_table(folder, final, arms)
    shown = {name: arms[name] for name in (plan["baseline"], winner) if name is not None}
    content = SearchInput(_history(plan, search.trials()), search.importances(), parameters, winner)
    return _input(folder, plan, shown, records, fresh_seeds(plan["seeds"]), content)


def _history(plan: Mapping[str, Any], trials: Iterable[FrozenTrial]) -> pd.DataFrame:
    """Number, value and best value so far of each trial of a search."""
    frame = pd.DataFrame(
        [(trial.number, trial.value if trial.state == TrialState.COMPLETE else None) for trial in trials],
        columns=["number", "value"],
    ).astype({"value": float})
    best = frame["value"].cummax() if plan["direction"] == "maximize" else frame["value"].cummin()
    return frame.assign(best=best.ffill())


def table_trials(folder: SweepFolder, study: TableStudy) -> pd.DataFrame:
    """What a study of a table knows of its trials, see `trials_frame`."""
    arms = {name: arm["values"] for name, arm in folder.read_plan()["arms"].items()}
    return trials_frame(list(_records_of_table(folder, study, arms)))


def _records_of_table(
    folder: SweepFolder, study: TableStudy, arms: Mapping[str, Mapping[str, Any]]
) -> Iterable[TrialRecord]:
    for trial in study.trials():
        record = _record(folder, trial, study.planned(trial), arms)
        yield _tried_again(record, folder) if record.status == "FAILED" and folder.shares.is_dir() else record


def _tried_again(failed: TrialRecord, folder: SweepFolder) -> TrialRecord:
    """A trial that failed as far as the study knows, which cannot be told otherwise: a share may have finished it."""
    config = folder.config(failed.role, failed.number)
    run = TrialRuns(folder.trials).finished(run_stem(load_pipeline(config).pipeline)) if config.exists() else None
    result = None if run is None else run.read_result()
    if result is None or folder.read_plan()["metric"] not in result["metrics"]:
        return failed
    return replace(failed, status="COLLAPSED" if result.get("collapsed") else "FINISHED", folder=run, error=None)


def _record(
    folder: SweepFolder, trial: FrozenTrial, planned: PlannedTrial, arms: Mapping[str, Mapping[str, Any]]
) -> TrialRecord:
    found = trial.user_attrs.get("run_folder")
    return TrialRecord(
        number=trial.number,
        arm=planned.arm,
        seed=planned.seed,
        status=_status(trial),
        role=planned.role,
        values=arms[planned.arm],
        folder=None if found is None else RunFolder(folder.path / found),
        error=trial.user_attrs.get("error"),
    )


def _status(trial: FrozenTrial) -> str:
    """What became of a trial; a point of a search that collapsed was told to Optuna as pruned."""
    if trial.state.is_finished() and trial.user_attrs.get("collapsed"):
        return "COLLAPSED"
    if trial.state == TrialState.COMPLETE:
        return "FINISHED"
    return {"FAIL": "FAILED"}.get(trial.state.name, trial.state.name)


def _notes(folder: SweepFolder, records: Iterable[TrialRecord]) -> tuple[str, ...]:
    """The conditions of the numbers: machine, versions, commit; of a trial where no parent has been at work."""
    trained = (record.folder for record in records if record.folder is not None)
    described = folder.record if folder.record.environment.exists() else next(trained, folder.record)
    try:
        environment = described.read_environment()
    except RunFolderError as error:
        return (str(error),)
    return environment_in_words(environment)
