"""Counts and names in the sentences below a table."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

MOST_NAMES = 12


def counted(number: int, what: str) -> str:
    """Such as: 1 trial, 3 trials."""
    return f"{number} {what}" + ("" if number == 1 else "s")


def names_of_trials(trials: pd.DataFrame) -> str:
    """Arm and seeds, such as: wide (seeds 0, 3), deep (seed 1)."""
    groups = [
        f"{arm} (seed{'' if len(mine) == 1 else 's'} {', '.join(str(seed) for seed in mine['seed'])})"
        for arm, mine in trials.groupby("arm", sort=False)
    ]
    return at_most(groups, "arms")


def at_most(names: Sequence[str], what: str) -> str:
    """The first names, and how many more there are."""
    rest = f" and {len(names) - MOST_NAMES} more {what}" if len(names) > MOST_NAMES else ""
    return ", ".join(names[:MOST_NAMES]) + rest
