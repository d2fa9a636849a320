"""The figures at the end of a run."""

from __future__ import annotations

import logging

from jepa_lab.composition.parts import RunParts
from jepa_lab.contracts import plugin_failure
from jepa_lab.evaluation import OnlineEvaluation
from jepa_lab.models.ijepa import IJepa
from jepa_lab.run_figures import DrawnFigures, draw_run_figures, look_at_run
from jepa_lab.training.devices import memory_errors

logger = logging.getLogger(__name__)


def draw_figures(parts: RunParts, model: IJepa, online: OnlineEvaluation) -> DrawnFigures:
    """Draw what can be drawn of a run whose result has been written, which no error here may cost it."""
    try:
        with memory_errors(parts.pipeline.training):
            seen = look_at_run(
                parts.pipeline, model, parts.data, parts.probe_data, parts.compute, online.spectra, parts.folder
            )
    except Exception as error:
        logger.exception("the images of the figures could not be looked at")
        return DrawnFigures(failed={"all": plugin_failure(error) or error})
    return draw_run_figures(seen, parts.folder)
