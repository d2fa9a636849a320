"""Gathering: the study of a sweep is told of trials that others have finished, and nothing is trained."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from optuna.trial import TrialState

from jepa_lab.config.loading import load_pipeline
from jepa_lab.sweeps.folder import SweepFolder
from jepa_lab.sweeps.ledger import Ledger, Trial
from jepa_lab.sweeps.studies import Studies, open_studies
from jepa_lab.sweeps.study import TableStudy, open_storage, planned_trials


def gathered_studies(folder: SweepFolder, url: str | None) -> Studies:
    """The studies of a sweep, which know of everything that shares of it have finished.

    Args:
        url: Optuna URL, where the sweep was given one.
    Raises:
        RunFolderError: the sweep has neither been begun nor have shares of it.
    """
    has_other_study = url is None and not folder.journal.exists() and folder.record.environment.exists()
    if folder.shares.is_dir() and not has_other_study:  # of a sweep that was given a --storage
        with folder.lock() as lock:
            if lock.try_acquire():  # else a parent is at work, which gathers by itself
                plan = folder.read_plan()
                studies = Studies(open_storage(folder.journal, url), plan)
                _gather(folder, studies.table, plan["metric"], plan["arms"], plan["seeds"])
                return studies
    return open_studies(folder, url)


def _gather(folder: SweepFolder, study: TableStudy, metric: str, arms: Iterable[str], seeds: Iterable[int]) -> None:
    study.enqueue(planned_trials(arms, seeds))
    study.name_metric(metric)
    ledger = Ledger(folder, study, metric)
    for trial in _unfinished(folder, study):
        finished = ledger.runs.finished(trial.run_stem)
        if finished is not None:
            study.begin(trial.number)
            ledger.see(trial)
            ledger.finish(trial, finished)


def _unfinished(folder: SweepFolder, study: TableStudy) -> Iterator[Trial]:
    """The trials that the study does not know to be over, as far as anybody has begun them."""
    for each in study.trials():
        config = folder.config(study.planned(each).role, each.number)
        if each.state in (TrialState.WAITING, TrialState.RUNNING) and config.exists():
            yield Trial(each.number, study.planned(each), load_pipeline(config), {}, {})
