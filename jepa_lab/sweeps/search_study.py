"""Optuna's study of a search: the points that its sampler chooses, on one seed."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.importance import FanovaImportanceEvaluator, get_param_importances
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner
from optuna.samplers import BaseSampler, GPSampler, QMCSampler, RandomSampler, TPESampler
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, Trial, TrialState

from jepa_lab.sweeps.search import Point, SearchParameter
from jepa_lab.sweeps.study import Direction, Study, quiet_optuna


def _quasi_random(seed: int) -> BaseSampler:
    """Sobol's sequence, scrambled. Optuna calls its interface experimental, which is no news for the user."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return QMCSampler(seed=seed, scramble=True)


SAMPLERS: dict[str, Callable[[int], BaseSampler]] = {
    "tpe": lambda seed: TPESampler(seed=seed),
    "random": lambda seed: RandomSampler(seed=seed),
    "qmc": _quasi_random,
    "gp": lambda seed: GPSampler(seed=seed),
}
PRUNERS: dict[str, Callable[[int], BasePruner]] = {
    "median": lambda epochs: MedianPruner(n_startup_trials=4),
    "hyperband": lambda epochs: HyperbandPruner(min_resource=1, max_resource=epochs),
}
_IMPORTANCE_SEED = 0
_TREES, _FEWEST_TREES, _TRIALS_OF_ALL_TREES = 64, 16, 250


class SearchStudy(Study):
    """The study of a search.

    Args:
        sampler, pruner: names; the pruner may be None.
        seed: of the sampler. epochs: of a whole trial.
    """

    def __init__(
        self,
        storage: BaseStorage,
        name: str,
        direction: Direction,
        *,
        sampler: str,
        seed: int,
        pruner: str | None,
        epochs: int,
    ) -> None:
        quiet_optuna()
        study = optuna.create_study(
            storage=storage,
            study_name=name,
            direction=direction,
            load_if_exists=True,
            pruner=NopPruner() if pruner is None else PRUNERS[pruner](epochs),
        )
        # A sampler that starts again from its seed would propose the first points again (QMC keeps its place itself).
        begun = 0 if sampler == "qmc" else len(study.get_trials(deepcopy=False))
        study.sampler = SAMPLERS[sampler](seed + begun)
        super().__init__(study, storage)

    def ask(self, parameters: tuple[SearchParameter, ...]) -> tuple[int, Point]:
        """A new point and the number of its trial."""
        trial = self._study.ask()
        return trial.number, _suggest_all(trial, parameters)

    def interrupted(self, parameters: tuple[SearchParameter, ...]) -> list[tuple[int, Point]]:
        """Trials that were going on when the parent ended; what it had not asked for yet is asked for now."""
        running = [trial for trial in self.trials() if trial.state == TrialState.RUNNING]
        return [(trial.number, _suggest_all(Trial(self._study, trial._trial_id), parameters)) for trial in running]

    def seconds_spent(self) -> float:
        """By the trials that are over."""
        return sum(trial.user_attrs.get("seconds", 0.0) for trial in self.trials())

    def should_prune(self, number: int) -> bool:
        """Whether the pruner would end the trial now; it looks at all trials."""
        return self._study.pruner.prune(self._study, self._frozen(number))

    def completed(self) -> list[FrozenTrial]:
        """The trials that have a value."""
        return [trial for trial in self.trials() if trial.state == TrialState.COMPLETE]

    def best(self, count: int) -> list[FrozenTrial]:
        """The best trials that were completed, the best first."""
        done = self.completed()
        sign = -1 if self._study.direction == optuna.study.StudyDirection.MAXIMIZE else 1
        return sorted(done, key=lambda trial: (sign * (trial.value or 0.0), trial.number))[:count]

    def importances(self) -> Mapping[str, float]:
        """Share of the variation that each parameter explains, by fANOVA; empty where it cannot be computed.

        Source: Hutter, Hoos & Leyton-Brown 2014. Optuna's default, PED-ANOVA, misleads on few trials.
        """
        done = self.completed()
        # fANOVA needs parameters that every trial has, with more than one value, and some variation to explain.
        shared = {key for key in (done[0].params if done else {}) if all(key in trial.params for trial in done)}
        varied = sorted(key for key in shared if len({trial.params[key] for trial in done}) > 1)
        if len(done) < 4 or not varied or len({trial.value for trial in done}) < 2:
            return {}
        # A tree takes more than twice as long for twice the trials, and fewer trees say as much.
        trees = min(_TREES, max(_FEWEST_TREES, _TREES * _TRIALS_OF_ALL_TREES // len(done)))
        evaluator = FanovaImportanceEvaluator(n_trees=trees, seed=_IMPORTANCE_SEED)
        return get_param_importances(self._study, evaluator=evaluator, params=varied)


def _suggest_all(trial: Trial, parameters: tuple[SearchParameter, ...]) -> Point:
    """The point of a trial; values that it has already stay."""
    point: dict[str, Any] = {}
    for parameter in parameters:
        if parameter.applies(point):
            point[parameter.key] = _suggest(trial, parameter)
    return point


def _suggest(trial: Trial, parameter: SearchParameter) -> Any:
    if parameter.kind == "categorical":
        return trial.suggest_categorical(parameter.key, parameter.choices)
    assert parameter.low is not None, "checked by the schema"
    assert parameter.high is not None, "checked by the schema"
    if parameter.kind == "float":
        return trial.suggest_float(parameter.key, parameter.low, parameter.high, step=parameter.step, log=parameter.log)
    step = 1 if parameter.step is None else int(parameter.step)
    return trial.suggest_int(parameter.key, int(parameter.low), int(parameter.high), step=step, log=parameter.log)
