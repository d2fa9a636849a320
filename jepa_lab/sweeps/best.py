"""The point that a search chose, as a pipeline file that `jepa-lab run` takes: `best.yaml` in the sweep's folder."""

from __future__ import annotations

from pathlib import Path

from jepa_lab.config.loading import dump_pipeline
from jepa_lab.errors import printable
from jepa_lab.sweeps.folder import SweepFolder
from jepa_lab.sweeps.labels import label
from jepa_lab.sweeps.plan import Plan
from jepa_lab.sweeps.search import Point, Search
from jepa_lab.tracking.atomic import write_text_atomically

_LONGEST_NAME = 80  # of a pipeline


def write_best(plan: Plan, search: Search, name: str, point: Point, folder: SweepFolder) -> Path:
    """Write the complete pipeline at the point that was chosen.

    Its data, probes and collapse rules are those of the base, its seed the first of the sweep's: running it trains
    the point as the search did, and scores the test split as the base says.

    Args:
        name: of the point.
    """
    pipeline = search.pipeline_of(point, plan.seeds[0]).pipeline
    pipeline = pipeline.model_copy(update={"name": f"{plan.name[: _LONGEST_NAME - len('-best')]}-best"})
    values = ", ".join(f"{key}={label(value)}" for key, value in point.items())
    lines = [
        f"# {name} of the search {plan.name}: {printable(values)}.",
        f"# Chosen by {plan.metric} on the validation split; report/report.html has its comparison with the baseline.",
    ]
    write_text_atomically(folder.best, "\n".join([*lines, dump_pipeline(pipeline)]))
    return folder.best
