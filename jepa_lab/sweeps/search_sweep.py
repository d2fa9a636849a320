"""A search: its points on the first seed, its best three and the baseline on the others, the winner on fresh seeds.

Only the winner and the baseline, trained anew, are scored on the test split: nothing is chosen by it. A point whose
features collapse is ended at once, as it will not be chosen; what follows the points is never ended early.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from jepa_lab.config.loading import LoadedPipeline
from jepa_lab.errors import JepaLabError
from jepa_lab.sweeps.base import ended_on_collapse
from jepa_lab.sweeps.best import write_best
from jepa_lab.sweeps.ledger import Trial
from jepa_lab.sweeps.plan import Arm, Plan
from jepa_lab.sweeps.search import Point, Search
from jepa_lab.sweeps.search_study import SearchStudy
from jepa_lab.sweeps.studies import Studies
from jepa_lab.sweeps.study import PlannedTrial, TableStudy
from jepa_lab.sweeps.workshop import Workshop

CONFIRMED_POINTS = 3


def point_name(number: int) -> str:
    """The arm that a point of the search becomes."""
    return f"point {number}"


def fresh_seeds(seeds: Sequence[int]) -> tuple[int, ...]:
    """As many seeds that no trial before has used."""
    return tuple(range(max(seeds) + 1, max(seeds) + 1 + len(seeds)))


def without_test_split(loaded: LoadedPipeline) -> LoadedPipeline:
    """The pipeline with a probe that leaves the test split alone."""
    pipeline = loaded.pipeline
    probe = pipeline.probe.model_copy(update={"score_test": False})
    return replace(loaded, pipeline=pipeline.model_copy(update={"probe": probe}))


def perform_search(plan: Plan, search: Search, studies: Studies, workshop: Workshop) -> bool:
    """Search, confirm, and train winner and baseline anew; False if a signal stopped it."""
    if not _Points(plan, search, studies.search, workshop).perform():
        return False
    best = studies.search.best(CONFIRMED_POINTS)
    if not best:
        workshop.display.message("no point of the search finished: there is no winner")
        return True
    points: dict[str, Point] = {point_name(trial.number): dict(trial.params) for trial in best}
    if len(plan.seeds) > 1:
        confirmation = _TableOfPoints(plan, search, points, workshop, "confirm")
        # The points have the first seed already; the baseline has none.
        study = studies.after("confirm", [plan.baseline, *points], plan.seeds)
        pairs = [(plan.baseline, seed) for seed in plan.seeds]
        pairs += [(name, seed) for seed in plan.seeds[1:] for name in points]
        if not confirmation.perform(study, pairs):
            return False
    winner = choose_winner(plan, studies)
    if winner is None:
        return True
    write_best(plan, search, winner, points[winner], workshop.folder)
    final = _TableOfPoints(plan, search, {winner: points[winner]}, workshop, "final")
    seeds = fresh_seeds(plan.seeds)
    study = studies.after("final", [plan.baseline, winner], seeds)
    return final.perform(study, [(name, seed) for seed in seeds for name in (plan.baseline, winner)])


def choose_winner(plan: Plan, studies: Studies) -> str | None:
    """The best point by its mean over all seeds; None where none finished."""
    best = studies.search.best(CONFIRMED_POINTS)
    values = {point_name(trial.number): [trial.value] for trial in best}
    if len(plan.seeds) > 1 and best:
        study = studies.after("confirm", [plan.baseline, *values], plan.seeds)
        for trial in study.trials():
            name = study.planned(trial).arm
            if name in values and trial.value is not None:
                values[name].append(trial.value)
    means = {name: float(np.mean([value for value in found if value is not None])) for name, found in values.items()}
    choose = max if plan.direction == "maximize" else min
    return choose(means, key=lambda name: means[name]) if means else None


class _Points:
    """The points of the search, each on the first seed."""

    def __init__(self, plan: Plan, search: Search, study: SearchStudy, workshop: Workshop) -> None:
        self.plan, self.search, self.study, self.workshop = plan, search, study, workshop
        self.started = time.monotonic()

    def perform(self) -> bool:
        """False if a signal stopped it."""
        over = sum(trial.state.is_finished() for trial in self.study.trials())
        queue = self.workshop.queue(self.study)
        queue.observe = self._observe
        planned = self.search.budget.trials
        return queue.perform(self._trials(), over, None if planned is None else max(over, planned), is_search=True)

    def _trials(self) -> Iterator[Trial]:
        for number, point in self.study.interrupted(self.search.parameters):
            trial = self._trial(number, point)
            if trial is not None:
                yield trial
        before = self.study.seconds_spent() / self.workshop.executor.capacity()
        while self._has_budget(before):
            trial = self._trial(*self.study.ask(self.search.parameters))
            if trial is not None:
                yield trial

    def _has_budget(self, seconds_before: float) -> bool:
        budget = self.search.budget
        if budget.trials is not None:
            return len(self.study.trials()) < budget.trials
        assert budget.hours is not None, "one of both, by the schema"
        return seconds_before + time.monotonic() - self.started < 3600 * budget.hours

    def _trial(self, number: int, point: Point) -> Trial | None:
        """The trial of a point; None where its values do not go together."""
        planned = PlannedTrial(point_name(number), self.plan.seeds[0], "search")
        try:
            pipeline = without_test_split(ended_on_collapse(self.search.pipeline_of(point, planned.seed), True))
        except JepaLabError as error:
            self.study.note(number, "error", str(error))
            self.study.finish(number, None)
            return None
        return self.workshop.trial(number, planned, pipeline, {key: point.get(key) for key in self.plan.swept_keys})

    def _observe(self, trial: Trial) -> None:
        """End a trial early that the pruner gives up."""
        if self.search.pruner is None or trial.watch is None:
            return
        if self.study.should_prune(trial.number):
            trial.watch.ask_to_stop()


class _TableOfPoints:
    """Points of the search and the baseline as arms, on several seeds."""

    def __init__(self, plan: Plan, search: Search, points: dict[str, Point], workshop: Workshop, role: str) -> None:
        self.plan, self.search, self.points, self.workshop, self.role = plan, search, points, workshop, role

    def perform(self, study: TableStudy, pairs: Sequence[tuple[str, int]]) -> bool:
        """Train the pairs of arm and seed; False if a signal stopped it."""
        study.enqueue(PlannedTrial(name, seed, self.role) for name, seed in pairs)
        left, total = study.to_run(), len(study.trials())

        def trials() -> Iterator[Trial]:
            for number, planned in left:
                study.begin(number)
                pipeline, values = self._pipeline(planned)
                yield self.workshop.trial(number, planned, pipeline, values)

        return self.workshop.queue(study).perform(trials(), total - len(left), total)

    def _pipeline(self, planned: PlannedTrial) -> tuple[LoadedPipeline, Point]:
        if planned.arm == self.plan.baseline:
            arm: Arm = self.plan.arm(self.plan.baseline)
            pipeline, values = self.plan.pipeline(arm, planned.seed), self.plan.flat_values(arm)
        else:
            point = self.points[planned.arm]
            pipeline = ended_on_collapse(self.search.pipeline_of(point, planned.seed), False)
            values = {key: point.get(key) for key in self.plan.swept_keys}
        return (pipeline if self.role == "final" else without_test_split(pipeline)), values
