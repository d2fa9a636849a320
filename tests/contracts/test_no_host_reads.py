"""A training step never asks the device: the host would wait for it, and the step could not be captured as a graph."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from jepa_lab.build import build_batch_maker, build_model, build_step
from jepa_lab.config.pipeline import Pipeline
from jepa_lab.data.resident import ResidentBatches, normalize, to_float
from jepa_lab.losses.l2 import L2Loss
from jepa_lab.randomness import build_generator
from jepa_lab.registry import FAMILIES
from jepa_lab.training.devices import Compute
from jepa_lab.training.finite import StepSums
from jepa_lab.training.team import Alone
from tests.integration.pipelines import load_tiny

CPU = torch.device("cpu")
COMPUTE = Compute(CPU, "fp32", compile=True)  # masks then keep their largest shape, as on a GPU
HOST_READS = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "is_nonzero", "equal")
"""Operators whose result depends on numbers of the device: a value on the host, or a shape."""


class HostReads(TorchDispatchMode):
    """Notes the operators that would make the host wait for a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.removeprefix("aten::")
        if name.rstrip("_").startswith(HOST_READS) and name != "equal_":
            self.found.append(name)
        if name in ("index", "index_put", "index_put_", "_index_put_impl_"):
            self.found += [f"{name} by truth values" for at in args[1] if at is not None and at.dtype == torch.bool]
        return func(*args, **(kwargs or {}))


def a_step(pipeline: Pipeline) -> Callable[[int], None]:
    """Everything that the loop does between two rows of metrics, on random images."""
    shape = (3 * pipeline.training.batch_size, 1, 16, 16)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    mean, std = torch.full((1,), 0.5), torch.full((1,), 0.25)
    model = build_model(pipeline, 1)

    def some(count: int) -> Iterator[Tensor]:
        yield normalize(to_float(images[:count]), mean, std)

    model.target.fit(some)
    order = ResidentBatches(images, pipeline.training.batch_size, build_generator(0, "order"), CPU)
    batches = build_batch_maker(pipeline, order, mean, std, COMPUTE, Alone())
    step, sums = build_step(pipeline, model, Compute(CPU, "fp32", compile=False), order.steps_per_epoch), StepSums(CPU)

    def take(number: int) -> None:
        batch = batches.make(batches.next_images())
        statistics = step(batch.images, batch.masks, number, batch.drop_path)
        sums.add(statistics.loss, statistics.refused)

    return take


def host_reads(folder: Path, *overrides: str) -> list[str]:
    """What the second step asks of the device; the first one fills tables."""
    take = a_step(load_tiny(folder, "data.image_size=16", *overrides).pipeline)
    take(1)
    with HostReads() as seen:
        take(2)
    return seen.found


IN_THE_STEP = {
    "augmentation": "augmentation={}",
    "downsampling": "hierarchy={{num_levels: 2, downsampling: {}}}",
    "loss": "loss={}",
    "masker": "masker={}",
    "regularizer": "regularizer={}",
    "target": "target={}",
    "ema_momentum": "ema_momentum={}",
}
COMPONENTS = [
    pytest.param((override.format(name),), id=f"{family}-{name}")
    for family, override in IN_THE_STEP.items()
    for name in FAMILIES[family].names()
]
POSITIONS = [
    pytest.param((f"encoder.position={name}", f"predictor.position={name}"), id=f"position-{name}")
    for name in FAMILIES["position"].names()
]
SETTINGS = [
    pytest.param(overrides, id=overrides[0])
    for overrides in (
        ("training.gradient_clip_norm=1.0",),
        ("encoder.drop_path_rate=0.2", "encoder.size.depth=2"),
        ("encoder.layer_scale=0.1",),
        ("training.accumulation_steps=2",),
        ("training.activation_checkpointing=true",),
        ("optimizer.final_weight_decay=0.4",),
        ("masker.block_sizes=batch",),
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


@pytest.mark.parametrize("overrides", COMPONENTS + POSITIONS + SETTINGS + SHAPES)
def test_a_step_reads_nothing_from_the_device(tmp_path: Path, overrides: tuple[str, ...]) -> None:
    small = [] if any(each.startswith("masker") for each in overrides) else ["masker=random"]
    assert host_reads(tmp_path, *small, *overrides) == []


@pytest.mark.parametrize(
    "reads",
    [
        lambda loss: loss * loss.mean().item(),
        lambda loss: loss if bool((loss > 0).any()) else -loss,
        lambda loss: loss[loss > -1].mean().expand_as(loss),
        lambda loss: loss + 0 * loss.nonzero().sum(),
    ],
)
def test_a_component_that_asks_the_device_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reads: Callable[[Tensor], Tensor]
) -> None:
    per_patch = L2Loss.per_patch
    monkeypatch.setattr(L2Loss, "per_patch", lambda self, predicted, wanted: reads(per_patch(self, predicted, wanted)))
    assert host_reads(tmp_path, "loss=l2")
