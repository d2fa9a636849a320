"""What a run says about itself before it trains: data, device, model, steps and folder, at a glance."""

from __future__ import annotations

from jepa_lab.composition.parts import RunParts
from jepa_lab.config.checks import pipeline_geometry
from jepa_lab.config.pipeline import Pipeline
from jepa_lab.data.base import DATASETS
from jepa_lab.models.ijepa import IJepa
from jepa_lab.training.devices import Compute
from jepa_lab.training.pretrain import Pretraining


def banner(parts: RunParts, pretraining: Pretraining) -> dict[str, str]:
    """Its lines, name -> text; how many images each split has was said before."""
    pipeline, timetable, state = parts.pipeline, pretraining.timetable, pretraining.state
    begun = f", from step {state.step:,}" if state.step else ""
    count = pipeline.training.epochs
    epochs = f"{count:,} epoch{'' if count == 1 else 's'} of {timetable.steps_per_epoch:,}"
    batch = f"batches of {pipeline.training.batch_size}"
    return {
        "data": _about_data(pipeline),
        "device": _about_device(parts, pretraining.step.compute),
        "model": _about_model(parts, pretraining.step.model),
        "training": f"{timetable.total_steps:,} steps{begun} ({epochs}), {batch}",
        "run folder": str(parts.folder.path),
    }


def _about_data(pipeline: Pipeline) -> str:
    side, other = pipeline.data.image_size, pipeline.probe.data
    told = f"{DATASETS.entry_of(pipeline.data.dataset).name}, {side}x{side} pixels"
    return told if other is None else f"{told}; probed on {DATASETS.entry_of(other.dataset).name}"


def _about_device(parts: RunParts, compute: Compute) -> str:
    return f"{parts.team.describe(compute)}, {compute.precision}{', compiled' if compute.compile else ''}"


def _about_model(parts: RunParts, model: IJepa) -> str:
    geometry, patch = pipeline_geometry(parts.pipeline), parts.pipeline.encoder.patch_size
    parts_of_model = (model.encoder_parameters(), model.predictor_parameters())
    encoder, predictor = (_count(sum(each.numel() for each in part)) for part in parts_of_model)
    return (
        f"encoder {geometry.encoder} (width x depth x heads), {encoder} parameters; predictor {geometry.predictor}, "
        f"{predictor}; {geometry.grid.num_patches} patches of {patch}x{patch}"
    )


def _count(number: int) -> str:
    """A count of parameters: 12 M, 3.4 M, 870 k."""
    if number >= 1_000_000:
        return f"{number / 1e6:.3g} M"
    return f"{number / 1e3:.3g} k" if number >= 1000 else str(number)
