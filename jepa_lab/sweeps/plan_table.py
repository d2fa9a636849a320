"""A plan as a table for the terminal."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from jepa_lab.sweeps.expansion import BASE_ARM
from jepa_lab.sweeps.labels import label
from jepa_lab.sweeps.plan import Arm, Plan
from jepa_lab.sweeps.search import Search, SearchParameter

_MOST_ROWS = 60


def describe_plan(plan: Plan) -> RenderableType:
    """Arms with what they change, trials, metric and notes; for a search its space and budget."""
    parts: list[RenderableType] = [_heading(plan)]
    parts.append(_arms(plan) if plan.search is None else _space(plan.search))
    parts += [Text(f"note: {note}") for note in plan.notes]
    return Group(*parts)


def _heading(plan: Plan) -> Text:
    better = {"maximize": "higher", "minimize": "lower"}[plan.direction]
    seeds = ", ".join(map(str, plan.seeds))
    lines = [f"{plan.name} ({plan.kind}), {plan.digest[:8]}", f"metric: {plan.metric}, {better} is better"]
    if plan.search is None:
        lines.append(f"trials: {len(plan.arms)} arms x {len(plan.seeds)} seeds ({seeds}) = {plan.num_trials}")
    else:
        lines.append(f"trials: {_budget(plan.search)}; then the winner and the baseline with seeds {seeds}")
    return Text("\n".join(lines))


def _budget(search: Search) -> str:
    budget = search.budget
    length = f"{budget.trials} trials" if budget.trials is not None else f"{budget.hours:g} hours"
    pruner = "no pruner" if search.pruner is None else f"pruner {search.pruner}"
    return f"{length} by {search.sampler} (seed {search.sampler_seed}), {pruner}"


def _arms(plan: Plan) -> Table:
    table = _table("arm", "changes", "trials")
    for arm in plan.arms[:_MOST_ROWS]:
        is_unmarked = arm.name == plan.baseline != BASE_ARM
        name = f"{arm.name} (baseline)" if is_unmarked else arm.name
        table.add_row(Text(name), Text(_changes(plan, arm)), str(len(plan.seeds)))
    left = len(plan.arms) - _MOST_ROWS
    if left > 0:
        table.add_row(Text(f"and {left:,} more arms"), "", str(left * len(plan.seeds)))
    return table


def _changes(plan: Plan, arm: Arm) -> str:
    """What an arm has of its own; for a baseline that changes nothing, what the others change."""
    if arm.overrides:
        return "\n".join(f"{key}={label(value)}" for key, value in arm.overrides.items())
    return "\n".join(f"{key}={label(value)}" for key, value in plan.flat_values(arm).items())


def _space(search: Search) -> Table:
    table = _table("key", "values", "only where")
    for parameter in search.parameters:
        when = ", ".join(f"{key}={label(value)}" for key, value in parameter.when.items())
        table.add_row(Text(parameter.key), Text(_values(parameter)), Text(when))
    return table


def _values(parameter: SearchParameter) -> str:
    if parameter.kind == "categorical":
        return ", ".join(map(label, parameter.choices))
    scale = ", logarithmic" if parameter.log else ""
    step = "" if parameter.step is None else f", step {parameter.step:g}"
    return f"{parameter.kind} {parameter.low:g} to {parameter.high:g}{step}{scale}"


def _table(*headings: str) -> Table:
    table = Table(pad_edge=False)
    for heading in headings:
        table.add_column(heading, overflow="fold")
    return table
