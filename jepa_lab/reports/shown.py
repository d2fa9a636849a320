"""Which arms of a table with many are shown where there is no room for all: a rule, and the sentence that says it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from jepa_lab.reports.table import Row, Table


@dataclass(frozen=True)
class Shown:
    """Lines of a table.

    Attributes:
        table: the table with these lines alone: baseline, controls and references, then the arms.
        words: which arms they are, such as "the 20 best and the 10 worst of 199 arms"; empty where they are all.
    """

    table: Table
    words: str

    @property
    def arms(self) -> list[Row]:
        """The baseline and the arms."""
        return [row for row in self.table.rows if row.is_trained]


def best_and_worst(table: Table, best: int, worst: int) -> Shown:
    """All lines in the order of the plan, where there are at most `best + worst` arms beside the baseline.

    Of more the best and the worst by the table's metric, the best first. Arms without a result are left out then.
    """
    arms = [row for row in table.rows if row.role == "arm"]
    if len(arms) <= best + worst:
        return Shown(table, "")
    sign = -1 if table.content.higher_is_better else 1
    ranked = sorted((row for row in arms if row.values), key=lambda row: sign * row.mean.mean)
    last = max(best, len(ranked) - worst)
    others = [row for row in table.rows if row.role != "arm"]
    kept = (*others, *ranked[:best], *ranked[last:])
    words = f"the {min(best, len(ranked))} best and the {len(ranked) - last} worst of {len(arms)} arms"
    return Shown(replace(table, rows=kept), words)
