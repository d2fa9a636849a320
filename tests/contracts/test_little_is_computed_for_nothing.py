"""What every shipped pipeline computes in a step, over what is useful of it: the goal, on each device.

Useful is every sequence at its own length, whether its tokens are read or not. The count is exact:
`tests/unit/models/test_flops.py`.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from jepa_lab.arithmetic import count_arithmetic, layout_of
from jepa_lab.build import build_model
from jepa_lab.config.loading import load_pipeline
from jepa_lab.config.pipeline import Pipeline
from jepa_lab.data.base import DATASETS

PIPELINES = sorted((Path(__file__).parents[2] / "pipelines").glob("*.yaml"))

GOAL, GOAL_OF_SHARED_COUNTS = 1.15, 1.3
"""The most that a step may compute, over what is useful; the second where all images of a batch share their counts,
which then change from batch to batch (`prefix`, `subset`)."""


def ratio(pipeline: Pipeline) -> float:
    channels = DATASETS.entry_of(pipeline.data.dataset).component.num_channels
    with torch.device("meta"):
        model = build_model(pipeline, channels)
    return count_arithmetic(pipeline, model, layout_of(pipeline, model, total_steps=10**6)).ratio


@pytest.mark.parametrize("batching", ["pad", "prefix"])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("file", PIPELINES, ids=lambda file: file.stem)
def test_little_is_computed_for_nothing(file: Path, device: str, batching: str) -> None:
    loaded = load_pipeline(file, [f"training.device={device}", f"context_batching={batching}", "training.compile=off"])
    assert ratio(loaded.pipeline) <= (GOAL if batching == "pad" else GOAL_OF_SHARED_COUNTS)
