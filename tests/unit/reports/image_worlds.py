"""The scored images of simulated runs."""

from __future__ import annotations

import numpy as np

from jepa_lab.runs.predictions import ScoredImages, SplitImages

IMAGES = SplitImages("a data set", "its pixels", 32)


def scored(right: np.ndarray, positions: np.ndarray | None = None) -> ScoredImages:
    """Images [n] of one run, of one class."""
    positions = np.arange(len(right)) if positions is None else positions
    return ScoredImages(IMAGES, positions, np.zeros(len(right), np.int64), right.astype(float))
