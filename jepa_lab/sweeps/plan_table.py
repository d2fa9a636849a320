"""A plan as a table for the terminal."""

from __future__ import annotations

from rich.console import Console

from jepa_lab.sweeps.expansion import BASE_ARM
from jepa_lab.sweeps.labels import label
from jepa_lab.sweeps.plan import Arm, Plan
from jepa_lab.sweeps.search import Search, SearchParameter
from jepa_lab.tables.cells import Cell, Column, TextTable, text_columns
from jepa_lab.tables.terminal import print_notes, print_text_table, print_wrapped

_MOST_ROWS = 60


def print_plan_table(plan: Plan, console: Console) -> None:
    """Print arms with what they change, trials, metric and notes; for a search its space and budget."""
    for line in _heading(plan):
        print_wrapped(line, console)
    console.print()
    print_text_table(_arms(plan) if plan.search is None else _space(plan.search), (), console)
    if plan.notes:
        console.print()
        print_notes(plan.notes, console)


def _heading(plan: Plan) -> list[str]:
    better = {"maximize": "higher", "minimize": "lower"}[plan.direction]
    seeds = ", ".join(map(str, plan.seeds))
    lines = [f"{plan.name} ({plan.kind}), {plan.digest[:8]}", f"metric: {plan.metric}, {better} is better"]
    if plan.search is None:
        lines.append(f"trials: {len(plan.arms)} arms x {len(plan.seeds)} seeds ({seeds}) = {plan.num_trials}")
        if plan.split_seeds is not None:
            splits = ", ".join(map(str, plan.split_seeds))
            lines.append(f"validation splits: one for each seed (data.split_seed {splits}); the test split is the same")
    else:
        lines.append(f"trials: {_budget(plan.search)}; then the winner and the baseline with seeds {seeds}")
    if plan.references:
        lines.append(f"references, probed but not trained: {', '.join(each.name for each in plan.references)}")
    return lines


def _budget(search: Search) -> str:
    budget = search.budget
    length = f"{budget.trials} trials" if budget.trials is not None else f"{budget.hours:g} hours"
    pruner = "no pruner" if search.pruner is None else f"pruner {search.pruner}"
    return f"{length} by {search.sampler} (seed {search.sampler_seed}), {pruner}"


def _arms(plan: Plan) -> TextTable:
    rows = []
    for arm in plan.arms[:_MOST_ROWS]:
        is_unmarked = arm.name == plan.baseline != BASE_ARM
        name = f"{arm.name} (baseline)" if is_unmarked else arm.name
        rows.append((Cell(name), Cell(_changes(plan, arm)), Cell(str(len(plan.seeds)))))
    left = len(plan.arms) - _MOST_ROWS
    if left > 0:
        rows.append((Cell(f"and {left:,} more arms"), Cell(""), Cell(str(left * len(plan.seeds)))))
    return TextTable("", (*text_columns("arm", "changes"), Column("trials")), tuple(rows))


def _changes(plan: Plan, arm: Arm) -> str:
    """What an arm has of its own; for a baseline that changes nothing, what the others change."""
    if arm.overrides:
        return "\n".join(f"{key}={label(value)}" for key, value in arm.overrides.items())
    return "\n".join(f"{key}={label(value)}" for key, value in plan.flat_values(arm).items())


def _space(search: Search) -> TextTable:
    rows = [
        (
            Cell(parameter.key),
            Cell(_values(parameter)),
            Cell(", ".join(f"{key}={label(value)}" for key, value in parameter.when.items())),
        )
        for parameter in search.parameters
    ]
    if not any(parameter.when for parameter in search.parameters):
        return TextTable("", text_columns("key", "values"), tuple(row[:2] for row in rows))
    return TextTable("", text_columns("key", "values", "only where"), tuple(rows))


def _values(parameter: SearchParameter) -> str:
    if parameter.kind == "categorical":
        return ", ".join(map(label, parameter.choices))
    scale = ", logarithmic" if parameter.log else ""
    step = "" if parameter.step is None else f", step {parameter.step:g}"
    return f"{parameter.kind} {parameter.low:g} to {parameter.high:g}{step}{scale}"
