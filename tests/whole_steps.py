"""Whole training steps, captured by a stand-in for CUDA graphs."""

from __future__ import annotations

from jepa_lab.training.capture import CapturedStep
from jepa_lab.training.whole_step import WholeStep
from tests.recorded_graph import Recorder


def captured(
    step: WholeStep, *, required: bool = False, recorder: Recorder | None = None
) -> tuple[CapturedStep, Recorder]:
    """The same step, captured by a stand-in for CUDA graphs."""
    recorder = recorder or Recorder()
    return CapturedStep(step.batches, step.step, step.sums, recorder, required), recorder
