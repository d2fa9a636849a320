"""From what a person gives to a plan: an ablation file, or a pipeline file with several values of some keys."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jepa_lab.sweeps.choices import NO_CHOICES, Choices
from jepa_lab.sweeps.plan import Plan, load_plan, plan_ablation
from jepa_lab.sweeps.quick_grid import QuickGrid, is_pipeline, quick_grid
from jepa_lab.tracking.credentials import scrub


@dataclass(frozen=True)
class Planned:
    """A plan, and the ablation file that says it.

    Attributes:
        file: that was given. grid: what a pipeline file stands for; None for an ablation file.
        preset: that was asked for.
    """

    plan: Plan
    file: Path
    grid: QuickGrid | None
    preset: str | None

    def text(self, root: Path) -> str:
        """The ablation file: as it was given, or as one in the folder of the sweep.

        Args:
            root: folder of the sweep folders.
        """
        if self.grid is None:
            return self.file.read_text(encoding="utf-8")
        return self.grid.text(root / self.plan.folder_name, self.preset)

    def command(self, written: Path) -> str | None:
        """The command with which the ablation file of a pipeline file is the same plan; None for an ablation file.

        Args:
            written: that file, in the folder of the sweep.
        """
        if self.grid is None:
            return None
        preset = () if self.preset is None else (*map(scrub, self.grid.single), "--preset", self.preset)
        root = written.parents[1]
        elsewhere = () if root == Path("sweeps") else ("--sweeps", str(root))
        return shlex.join(["jepa-lab", "sweep", str(written), *preset, *elsewhere])


def plan_file(
    file: Path, overrides: Sequence[str] = (), preset: str | None = None, choices: Choices = NO_CHOICES
) -> Planned:
    """The plan of a file; see `plan_ablation` and `quick_grid`.

    Raises:
        ConfigError: all that is wrong.
    """
    if not is_pipeline(file):
        return Planned(load_plan(file, overrides, preset, choices), file, None, preset)
    grid = quick_grid(file, overrides, choices)
    # After a preset, as overrides always are; without one they stand in the ablation.
    after = () if preset is None else grid.single
    return Planned(plan_ablation(grid.ablation, after, preset, choices), file, grid, preset)
