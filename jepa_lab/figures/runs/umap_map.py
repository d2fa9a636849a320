"""Where images lie among each other, as seen by the encoder: UMAP of their features."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Sequence

from jepa_lab.figures.runs.base import FIGURES, RunFigure, SeenRun
from jepa_lab.figures.runs.feature_map import map_drawing
from jepa_lab.figures.style import Drawing

_NEIGHBOURS = 15
_FEWEST = 20
"""Images, below which UMAP falls back to other methods."""


@FIGURES.register(
    "umap",
    summary="features of test images on a plane, by UMAP; needs the package umap-learn, and is drawn by reports alone",
    source="McInnes, Healy and Melville 2018, arXiv:1802.03426, as umap-learn computes it with its default parameters",
)
class UmapMap(RunFigure):
    """Which images are neighbours; distances between groups, and their sizes, mean nothing."""

    place = 50
    after_run = False

    def drawings(self, seen: SeenRun) -> Sequence[Drawing] | str:
        if importlib.util.find_spec("umap") is None:
            return "it needs the package umap-learn; `pip install umap-learn` and write the report again to see it"
        if len(seen.images) < _FEWEST:
            return f"it needs {_FEWEST} images, and there are {len(seen.images)}"
        from umap import UMAP

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that a fixed seed leaves one thread, and deprecations of its own parts
            places = UMAP(n_neighbors=_NEIGHBOURS, random_state=0).fit_transform(seen.images.features.numpy())
        title = f"Features of {seen.images.words}, by UMAP"
        alt = f"UMAP of {seen.images.words} ({_NEIGHBOURS} neighbours); only who is near whom means something."
        return [map_drawing("umap", title, alt, places, ("UMAP 1", "UMAP 2"), seen.images)]
