"""Whole training steps of a small pipeline on random images."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from jepa_lab.build import build_model, build_whole_step
from jepa_lab.config.documents import Document
from jepa_lab.config.loading import complete_pipeline
from jepa_lab.config.pipeline import Pipeline
from jepa_lab.data.resident import ResidentBatches, normalize, to_float
from jepa_lab.randomness import build_generator
from jepa_lab.registry import ComponentParams
from jepa_lab.testing.components import ComponentContract
from jepa_lab.training.devices import Compute
from jepa_lab.training.mask_source import DrawnAhead
from jepa_lab.training.step_watch import objections_to_capture
from jepa_lab.training.whole_step import WholeStep

CPU = torch.device("cpu")
_SIDE = 16


class InTheStep(ComponentContract):
    """Tests of a component that takes part in every training step.

    Attributes:
        overrides: where it stands in a pipeline, `{}` in its place.
    """

    overrides: ClassVar[Sequence[str]]

    def test_a_step_with_it_can_be_captured(self, params: ComponentParams) -> None:
        """It reads nothing from the device and hands the step no number or tensor of Python that changes."""
        assert objections(small_pipeline(*self._in_place(params))) == []

    def test_a_step_with_it_changes_the_weights_and_keeps_them_finite(self, params: ComponentParams) -> None:
        step = whole_step(small_pipeline(*self._in_place(params)))
        before = [parameter.detach().clone() for parameter in step.step.model.encoder_parameters()]
        for number in (1, 2):
            step.on_device(step.batches.next_images(), step.prepared(number))
        after = list(step.step.model.encoder_parameters())
        assert all(torch.isfinite(parameter).all() for parameter in after)
        assert any(not torch.equal(old, new) for old, new in zip(before, after, strict=True))

    def _in_place(self, params: ComponentParams) -> list[str]:
        content = json.dumps(params.model_dump(mode="json"))
        usual = [] if any(each.startswith("masker=") for each in self.overrides) else ["masker=random"]
        return [*usual, *(each.replace("{}", content) for each in self.overrides)]


def small_pipeline(*overrides: str) -> Pipeline:
    """A pipeline of a tiny model on images of 16 px, trained on the CPU."""
    content: dict[str, Any] = {
        "name": "small",
        "data": {"dataset": "digits", "image_size": _SIDE, "max_images": 160},
        "augmentation": {"name": "minimal", "flip_probability": 0.0},
        "masker": {"name": "multi_block", "num_targets": 2, "min_context_patches": 2},
        "encoder": {"size": {"name": "custom", "embed_dim": 16, "depth": 1, "num_heads": 2}, "patch_size": 2},
        "predictor": {"size": {"name": "custom", "embed_dim": 8, "depth": 1, "num_heads": 2}},
        "training": {"epochs": 3, "batch_size": 24, "device": "cpu", "num_threads": 1},
        "tracking": "none",
    }
    return complete_pipeline(Document(content), overrides).pipeline


def objections(pipeline: Pipeline) -> list[str]:
    """Why the step of a small pipeline cannot be captured, each with its place in the code."""
    step = whole_step(pipeline)
    batch, masks = step.batches.next_images(), step.batches.masks
    drawn = step.prepared(1)

    def take() -> None:
        assert isinstance(masks, DrawnAhead)
        masks.draw_ahead()
        step.on_device(batch, drawn)

    return objections_to_capture(take)


def whole_step(
    pipeline: Pipeline,
    precision: str = "fp32",
    *,
    compiled: bool = False,
    capture: bool = False,
    device: torch.device = CPU,
) -> WholeStep:
    """A pipeline's whole step on random images, with the fixed shapes that a capture needs."""
    shape = (3 * pipeline.training.batch_size, 1, _SIDE, _SIDE)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    mean, std = torch.full((1,), 0.5), torch.full((1,), 0.25)
    model = build_model(pipeline, 1)
    compute = Compute(device, precision, compile=compiled, capture=True)

    def some(count: int) -> Iterator[Tensor]:
        yield normalize(to_float(images[:count]), mean, std)

    model.target.fit(some)
    order = ResidentBatches(images, pipeline.training.batch_size, build_generator(0, "order"), device)
    step = build_whole_step(pipeline, model.to(device), order, mean, std, compute)
    return step if capture else WholeStep(step.batches, step.step, step.sums)
