"""The figures of a run: what they are drawn from, and writing them into its folder."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

import jepa_lab.figures.runs  # noqa: F401  (registers them)
from jepa_lab.build import PreparedData
from jepa_lab.config.pipeline import Pipeline
from jepa_lab.contracts import plugin_failure, require
from jepa_lab.data.base import ImageSplit
from jepa_lab.data.images import to_tensor
from jepa_lab.errors import JepaLabError, RunCrashed
from jepa_lab.evaluation import chosen_encoder, encoder_at_probed_grid, extraction_size, probe_splits, probed_encoder
from jepa_lab.figures.runs.base import FIGURES, RunFigure, SeenRun, ShownImages, examples_of
from jepa_lab.figures.style import LIGHT, Drawing, png
from jepa_lab.inspection import sample_statistics
from jepa_lab.models.ijepa import IJepa
from jepa_lab.monitoring import some_places
from jepa_lab.monitors.spectra import Spectra
from jepa_lab.probes.features import extract_features, patch_features
from jepa_lab.registry import Entry
from jepa_lab.runs.predictions import predictions_of_run
from jepa_lab.tracking.atomic import explained_writes, sync_folder, write_bytes_atomically
from jepa_lab.tracking.credentials import scrub
from jepa_lab.tracking.metrics import read_metrics
from jepa_lab.tracking.run_folder import RunFolder
from jepa_lab.training.devices import Compute

logger = logging.getLogger(__name__)

_MOST_IMAGES, _FEWEST_IMAGES = 1024, 96
_OPERATIONS = {"cpu": 2e11}
_OPERATIONS_ELSEWHERE = 5e13
"""What encoding the images may cost: some seconds. A large encoder shows fewer of them."""


def look_at_run(
    pipeline: Pipeline,
    model: IJepa,
    data: PreparedData,
    probe_data: PreparedData,
    compute: Compute,
    spectra: Spectra,
    folder: RunFolder,
) -> SeenRun:
    """What the figures of a run are drawn from.

    The images are those of the test split where the run scores it, else of the validation split: of their features
    nothing is scored.

    Args:
        model: on the device. data, probe_data: on which it was trained and probed.
        folder: whose metrics and predictions are read.
    """
    result = folder.read_result() or {}
    return SeenRun(
        rows=read_metrics(folder.metrics),
        masks=sample_statistics(pipeline),
        spectrum_start=None if spectra.first is None else torch.tensor(spectra.first),
        spectrum_end=torch.tensor(spectra.last) if spectra.last else None,
        num_monitored=spectra.num_images,
        images=_shown_images(pipeline, model, data, probe_data, compute),
        predictions=predictions_of_run(folder) if result.get("probe") else _without_probe(result.get("probe_skipped")),
        probe_titles=result.get("probe_titles", {}),
    )


def _without_probe(reason: str | None) -> str:
    return "the run has not been probed yet" if reason is None else reason


def _shown_images(
    pipeline: Pipeline, model: IJepa, data: PreparedData, probe_data: PreparedData, compute: Compute
) -> ShownImages:
    name, split = _shown_split(pipeline, probe_data)
    encoder = probed_encoder(model, pipeline)
    plain = encoder_at_probed_grid(chosen_encoder(model, pipeline), pipeline)
    # Labels and pixels must stay together, so indices are drawn and not images.
    count = _affordable(model, plain.num_patches, compute.device)
    places = some_places(len(split), count, pipeline.data.split_seed, "images of figures")
    images = to_tensor(split.images[places]).cpu()
    examples = images[examples_of(len(images))]
    batch_size, statistics = extraction_size(pipeline, encoder, compute.device), (data.mean, data.std)
    return ShownImages(
        split=name,
        available=len(split),
        pixels=images,
        labels=None if split.labels is None else split.labels.cpu()[places],
        class_names=probe_data.class_names,
        features=extract_features(encoder, images, *statistics, pipeline.probe.num_layers, batch_size, compute.device),
        patches=patch_features(plain, examples, *statistics, batch_size, compute.device).cpu(),
        grid=plain.grid,
    )


def _shown_split(pipeline: Pipeline, probe_data: PreparedData) -> tuple[Literal["test", "validation"], ImageSplit]:
    splits = probe_splits(probe_data)
    if splits is not None and splits.test is not None and pipeline.probe.score_test:
        return "test", splits.test
    return "validation", probe_data.validation


def _affordable(model: IJepa, num_patches: int, device: torch.device) -> int:
    """How many images can be encoded in a few seconds; attention, which is little beside the rest, is left out."""
    per_image = 2 * num_patches * sum(parameter.numel() for parameter in model.encoder_parameters())
    budget = _OPERATIONS.get(device.type, _OPERATIONS_ELSEWHERE)
    return int(min(_MOST_IMAGES, max(_FEWEST_IMAGES, budget / per_image)))


@dataclass
class DrawnFigures:
    """What became of the figures of a run.

    Attributes:
        drawings: in the order in which they are shown.
        left_out: figure -> a sentence that says why there is nothing to draw.
        failed: figure -> the error that kept it from being drawn.
    """

    drawings: list[Drawing] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    failed: dict[str, Exception] = field(default_factory=dict)

    def record(self) -> dict[str, Any]:
        """What result.json says about them."""
        failed = {name: scrub(_in_words(error)) for name, error in self.failed.items()}
        return {"drawn": [each.name for each in self.drawings], "left_out": self.left_out, "failed": failed}

    def error(self, log: Path, more: str) -> JepaLabError | None:
        """What to tell about figures that could not be drawn; None where all could be.

        Args:
            log: that has the traceback. more: a sentence about what that means for the rest.
        """
        if not self.failed:
            return None
        told = "; ".join(f"{name} ({_in_words(error)})" for name, error in self.failed.items())
        text = f"some figures could not be drawn: {told}. {more}"
        first = next(iter(self.failed.values()))
        if isinstance(first, JepaLabError):
            return type(first)(text)
        return RunCrashed(f"{text}. This is a bug in jepa-lab: the traceback is in {log}; please report it")


def _in_words(error: Exception) -> str:
    return str(error) if isinstance(error, JepaLabError) else f"{type(error).__name__}: {error}"


def collect_drawings(seen: SeenRun, *, after_run: bool, use: Callable[[Drawing], None]) -> DrawnFigures:
    """Every figure of a run. One that fails keeps no other from being drawn, and is told in the log.

    Args:
        after_run: leave out those that take long.
        use: is given each drawing, and draws it.
    """
    found = DrawnFigures()
    for entry in _in_order():
        if after_run and not entry.component.after_run:
            continue
        try:
            drawings = _checked_drawings(entry, seen, [drawing.name for drawing in found.drawings])
            if isinstance(drawings, str):
                found.left_out[entry.name] = drawings
                logger.info("figure %s is left out: %s", entry.name, drawings)
                continue
            for drawing in drawings:
                use(drawing)
            found.drawings += drawings
        except Exception as error:  # a picture must not cost a run that has finished; the caller tells of it
            logger.exception("figure %s could not be drawn", entry.name)
            found.failed[entry.name] = plugin_failure(error) or error
    return found


def _checked_drawings(entry: Entry[RunFigure], seen: SeenRun, taken: Sequence[str]) -> Sequence[Drawing] | str:
    """What a figure draws, which must be what its base class promises.

    Args:
        taken: names of earlier drawings, whose files another one of the same name would replace.
    Raises:
        PluginError, AssertionError: see `require`.
    """
    figure = entry.component(entry.params_type())
    found: Any = figure.drawings(seen)
    if isinstance(found, str):
        return found
    fits = isinstance(found, Sequence) and bool(found) and all(isinstance(each, Drawing) for each in found)
    require(figure, "drawings", fits, found, "a sequence of at least one Drawing, or a sentence")
    names = [drawing.name for drawing in found]
    fits = len({*taken, *names}) == len(taken) + len(names)
    require(figure, "drawings (names)", fits, names, f"names that no other drawing has: not {', '.join(taken)}")
    return found


def _in_order() -> Iterator[Entry[RunFigure]]:
    return iter(sorted(FIGURES, key=lambda entry: (entry.component.place, entry.name)))


def write_figure(drawing: Drawing, folder: Path) -> Path:
    """Write a drawing as `<name>.png`, for light paper; whole or not at all.

    Raises:
        RunStopped: the disk is full. RunFolderError: the folder may not be written.
    """
    with explained_writes(folder):
        folder.mkdir(parents=True, exist_ok=True)
        sync_folder(folder)
    file = folder / f"{drawing.name}.png"
    write_bytes_atomically(file, png(drawing, LIGHT, titled=True))
    return file


def draw_run_figures(seen: SeenRun, folder: RunFolder) -> DrawnFigures:
    """Write the figures that are drawn at the end of a run into its folder."""
    return collect_drawings(seen, after_run=True, use=lambda drawing: _write(drawing, folder))


def _write(drawing: Drawing, folder: RunFolder) -> None:
    write_figure(drawing, folder.figures)
