"""A step of every combination can be captured: it reads nothing from the device, and the next step repeats it.

Otherwise the host would wait for the device, or a graph of the step would repeat numbers and tensors of the past. That
it holds for each component is in the contract of its family.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from torch import Tensor

from jepa_lab.losses.l2 import L2Loss
from jepa_lab.registry import FAMILIES
from jepa_lab.testing.steps import objections
from tests.integration.pipelines import load_tiny
from tests.positions import PAIRS


def found_objections(folder: Path, *overrides: str) -> list[str]:
    """Why the step of a tiny pipeline cannot be captured."""
    return objections(load_tiny(folder, "data.image_size=16", *overrides).pipeline)


POSITIONS = [
    pytest.param(
        (f"encoder.position={of_encoder}", f"predictor.position={of_predictor}"), id=f"{of_encoder}-{of_predictor}"
    )
    for of_encoder, of_predictor in PAIRS
]
SETTINGS = [
    pytest.param(overrides, id=overrides[0])
    for overrides in (
        ("training.gradient_clip_norm=1.0",),
        ("training.max_skipped_batches=3",),
        ("encoder.drop_path_rate=0.2", "encoder.size.depth=2"),
        ("encoder.layer_scale=0.1",),
        ("training.accumulation_steps=2",),
        ("training.activation_checkpointing=true",),
        ("optimizer.final_weight_decay=0.4",),
        ("masker.block_sizes=batch",),
        ("masker.num_hidden_blocks=1",),
        ("hierarchy={num_levels: 3, predictor: shared_level_tokens, count_targets_on: level_below}",),
    )
]
SHAPES = [
    pytest.param(
        (f"masker={masker}", f"context_batching={batching}", f"predictor.target_sequences={sequences}"),
        id=f"{masker}-{batching}-{sequences}",
    )
    for masker in FAMILIES["masker"].names()
    for batching in ("pad", "subset", "prefix")
    for sequences in ("separate", "joint")
]


@pytest.mark.parametrize("overrides", POSITIONS + SETTINGS + SHAPES)
def test_a_step_can_be_captured(tmp_path: Path, overrides: tuple[str, ...]) -> None:
    small = [] if any(each.startswith("masker") for each in overrides) else ["masker=random"]
    assert found_objections(tmp_path, *small, *overrides) == []


@pytest.mark.parametrize(
    ("reads", "operator"),
    [
        (lambda loss: loss * loss.mean().item(), "_local_scalar_dense"),
        (lambda loss: loss if bool((loss > 0).any()) else -loss, "_local_scalar_dense"),
        (lambda loss: loss[loss > -1].mean().expand_as(loss), "index"),
        (lambda loss: loss + 0 * loss.nonzero().sum(), "nonzero"),
    ],
)
def test_a_component_that_asks_the_device_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reads: Callable[[Tensor], Tensor], operator: str
) -> None:
    per_patch = L2Loss.per_patch
    monkeypatch.setattr(L2Loss, "per_patch", lambda self, predicted, wanted: reads(per_patch(self, predicted, wanted)))
    found = found_objections(tmp_path, "loss=l2")
    assert any(f"({operator}" in each and f" at {__file__}:" in each for each in found)
