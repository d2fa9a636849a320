"""The sentence that a report opens with: what was found and over what, what is ruled out, or why there is nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from jepa_lab.reports.content import (
    HAS_RESULT,
    UNFINISHED,
    baseline_label,
    deciding_is_higher_better,
    deciding_metric,
    table_trials,
)
from jepa_lab.reports.numbers import Scale
from jepa_lab.reports.statistics import ALPHA, Comparison, equivalence_margin
from jepa_lab.reports.table import Row, Table
from jepa_lab.reports.wording import counted

_MOST_NAMES = 4
_OPENINGS = ("No ", "Nothing ", "The ", "With ")  # of a sentence that begins with no arm's name


def finding(table: Table) -> str:
    """What the table shows, in one sentence. It goes by the same p as the table, and by the wider of both intervals."""
    trials = table_trials(table.content)["status"]
    done, still_open = int(trials.isin(HAS_RESULT).sum()), int(trials.isin(UNFINISHED).sum())
    before = f"So far, with {done} of {len(trials)} trials finished: " if still_open and done else ""
    lost = len(trials) - done - still_open
    after = f"; {lost} of {counted(len(trials), 'trial')} failed or ended early" if lost and done else ""
    told = _found(table) if done else _nothing(len(trials), still_open, lost)
    if before and told.startswith(_OPENINGS):
        told = told[:1].lower() + told[1:]
    return f"{before}{told}{after}."


def _nothing(planned: int, still_open: int, lost: int) -> str:
    if not planned:
        return "No result yet: no trial of this table has begun"
    if not still_open:
        return f"Nothing was found: all of {counted(planned, 'trial')} failed or ended early"
    rest = f", and {lost} failed or ended early" if lost else ""
    return f"No result yet: {still_open} of {counted(planned, 'trial')} still running or waiting{rest}"


@dataclass(frozen=True)
class _Judged:
    """An arm with what decides about it.

    Attributes:
        gain: its mean difference from the baseline, positive where that is better.
    """

    row: Row
    comparison: Comparison
    gain: float

    @property
    def is_told_apart(self) -> bool:
        return self.row.holm_p <= ALPHA


def _found(table: Table) -> str:
    """The sentence, where there is a result."""
    baseline = table.rows[0]
    arms = [_judged(table, row) for row in table.rows if row.role == "arm"]
    if table.content.search is not None and not arms:
        return "The search has not chosen a point that could be compared with the baseline"
    if not arms:
        return f"There is no arm beside the {_called(baseline)}, so that nothing is compared"
    if not (baseline.test if table.content.search is not None else baseline.mean).n:
        return f"The {_called(baseline)} has no result, so that nothing can be compared with it"
    compared = [each for each in arms if each is not None]
    if not compared:
        return f"No arm has a result on a seed of the {_called(baseline)}, so that nothing can be compared"
    paired = [each for each in compared if each.comparison.difference.n >= 2]
    if not paired:
        best = max(compared, key=lambda each: each.gain)
        return (
            f"With one seed nothing can be told from luck: {_more_or_less(table, best)} than the {_called(baseline)}, "
            "which is not evidence"
        )
    return _told_apart(table, paired)


def _judged(table: Table, row: Row) -> _Judged | None:
    comparison = row.comparison if table.content.search is None else row.test_comparison
    if comparison is None or not comparison.difference.n:
        return None
    better = deciding_is_higher_better(table.content)
    return _Judged(row, comparison, (1 if better else -1) * comparison.difference.mean)


def _told_apart(table: Table, arms: Sequence[_Judged]) -> str:
    better = sorted((each for each in arms if each.is_told_apart and each.gain > 0), key=lambda each: -each.gain)
    worse = sorted((each for each in arms if each.is_told_apart and each.gain < 0), key=lambda each: each.gain)
    alike = [each for each in arms if not each.is_told_apart]
    if not better and not worse:
        return _no_difference(table, alike)
    baseline = _called(table.rows[0])
    if better:
        first = better[0]
        head = f"{_subject(table, first.row)} is better than the {baseline} by {_amount(table, first)}"
        rest = [f"{_names(better[1:])} {_is(better[1:])} better, too"] if better[1:] else []
        rest += [f"{_names(worse)} {_is(worse)} worse"] if worse else []
    else:
        first = worse[0]
        head = f"No arm is better than the {baseline}: {first.row.name} is worse by {_amount(table, first)}"
        rest = [f"{_names(worse[1:])} {_is(worse[1:])} worse, too"] if worse[1:] else []
    rest += [f"no difference was found for {_names(alike)}"] if alike else []
    return "; ".join([head, *rest])


def _no_difference(table: Table, arms: Sequence[_Judged]) -> str:
    """Not to find a difference is something only with what is ruled out."""
    baseline, metric = _called(table.rows[0]), deciding_metric(table.content)
    margins = [(each, equivalence_margin(each.comparison.strict)) for each in arms if not math.isnan(each.row.holm_p)]
    known = [(each, margin) for each, margin in margins if not math.isnan(margin)]
    if not known:
        return f"Nothing can be told apart from the {baseline} by {metric}: there is no spread between the seeds"
    largest, margin = max(known, key=lambda found: found[1])
    size, of_all = f"{_scale(table).value(margin)}{_unit(table)}", len(known) == len(arms)
    which = "" if of_all else f" for {_names([each for each, _ in known])}"
    return (
        f"No difference from the {baseline} found by {metric}: a difference of more than {size} is ruled "
        f"out{which} (95%, {_over(largest.comparison)})"
    )


def _subject(table: Table, row: Row) -> str:
    return row.name if table.content.search is None else f"The winner of the search, {row.name},"


def _amount(table: Table, judged: _Judged) -> str:
    """Such as 1.24 points of probe/validation_accuracy (95% interval +0.61 to +1.87, over 5 seeds and 287 images)."""
    scale, interval = _scale(table), judged.comparison.strict
    size = f"{scale.value(abs(judged.gain))}{_unit(table)} of {deciding_metric(table.content)}"
    ends = f"95% interval {scale.signed(interval.low)} to {scale.signed(interval.high)}"
    return f"{size} ({ends}, {_over(judged.comparison)})"


def _more_or_less(table: Table, judged: _Judged) -> str:
    size = f"{_scale(table).value(abs(judged.gain))}{_unit(table)} of {deciding_metric(table.content)}"
    return f"{judged.row.name} is {size} {'better' if judged.gain >= 0 else 'worse'}"


def _over(comparison: Comparison) -> str:
    seeds = counted(comparison.difference.n, "seed")
    if comparison.crossed is None:
        return f"over {seeds}"
    return f"over {seeds} and {comparison.crossed.num_images:,} images"


def _scale(table: Table) -> Scale:
    return table.scale if table.content.search is None else table.test_scale


def _unit(table: Table) -> str:
    unit = _scale(table).difference_unit
    return f" {unit}" if unit else ""


def _called(row: Row) -> str:
    """The baseline by its name: baseline two blocks."""
    return baseline_label(row.name).replace("baseline: ", "baseline ", 1)


def _names(arms: Sequence[_Judged]) -> str:
    names = [each.row.name for each in arms]
    if len(names) > _MOST_NAMES:
        names[_MOST_NAMES:] = [f"{counted(len(names) - _MOST_NAMES, 'more arm')}"]
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else names[0]


def _is(arms: Sequence[_Judged]) -> str:
    return "is" if len(arms) == 1 else "are"
