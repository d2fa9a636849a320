"""The model at step 0, and weights that its encoders begin with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jepa_lab.build import PreparedData, build_model
from jepa_lab.config.loading import LoadedPipeline
from jepa_lab.config.pipeline import Pipeline
from jepa_lab.models.ijepa import IJepa
from jepa_lab.weights.warm_start import WarmStart, read_warm_start


def check_weights(loaded: LoadedPipeline, data: PreparedData, run_root: Path) -> dict[str, Any]:
    """Refuse weights that the encoders cannot begin with.

    Returns:
        What environment.json says about them; nothing where the encoders begin at random.
    Raises:
        ConfigError: they cannot be read, or do not fit.
    """
    if loaded.pipeline.encoder.weights is None:
        return {}
    with loaded.located("encoder"):
        warm_start = first_model(loaded.pipeline, data, [run_root])[1]
    assert warm_start is not None, "the pipeline names weights"
    return {"encoder_weights": {"source": warm_start.source, "sha256": warm_start.sha256}}


def first_model(pipeline: Pipeline, data: PreparedData, roots: Sequence[Path]) -> tuple[IJepa, WarmStart | None]:
    """The model at step 0, and the weights that its encoders shall begin with.

    Args:
        roots: folders of run folders, whose names may be given.
    Raises:
        ConfigError: the weights cannot be read, or do not fit.
    """
    model = build_model(pipeline, data.train.images.shape[1])
    return model, read_warm_start(pipeline, model, roots)
