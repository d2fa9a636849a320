"""The look at what components return first is not part of a compiled step."""

from __future__ import annotations

from pathlib import Path

import torch
from torch._dynamo.utils import counters

from jepa_lab.build import build_model, build_sampler
from tests.integration.pipelines import load_tiny


def test_a_compiled_model_is_one_graph_before_and_after_the_components_were_looked_at(tmp_path: Path) -> None:
    pipeline = load_tiny(tmp_path).pipeline
    model = build_model(pipeline, num_channels=1)
    masks = build_sampler(pipeline).sample(4, torch.Generator().manual_seed(0), fixed_shapes=True)
    images, count = torch.rand(4, 1, 8, 8), model.count_targets(masks)
    torch.compiler.reset()
    counters.clear()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    first = compiled(images, masks, count).loss
    assert "_calls_seen" not in model.loss.__dict__
    assert torch.equal(model(images, masks, count).loss, first)
    assert "per_patch" in model.loss.__dict__["_calls_seen"]
    assert torch.equal(compiled(images, masks, count).loss, first)
    assert counters["stats"]["unique_graphs"] == 1
