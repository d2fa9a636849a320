"""Activation checkpointing: fewer activations are kept, and the step is the same."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from jepa_lab.build import build_model, build_sampler
from jepa_lab.grid import Grid
from jepa_lab.models.drop_path import DropPath
from jepa_lab.models.ijepa import IJepa
from jepa_lab.models.packing import PackedPatches
from jepa_lab.models.sizes import ModelSize
from jepa_lab.models.vit import VisionTransformer
from jepa_lab.positions.sincos import SinCosPosition
from jepa_lab.registry import ComponentParams
from tests.integration.pipelines import load_tiny

DEPTH = 4
DEEP = (f"encoder.size.depth={DEPTH}", "predictor.size.depth=3", "encoder.layer_scale=0.5")


def build_models(folder: Path, *overrides: str) -> tuple[IJepa, IJepa]:
    """The same model without and with checkpointing."""
    plain, recomputing = (
        build_model(load_tiny(folder, *DEEP, *overrides, f"training.activation_checkpointing={on}").pipeline, 1)
        for on in ("false", "true")
    )
    for parameter in plain.parameters():  # larger weights, so that differences cannot hide
        parameter.data.mul_(5)
    recomputing.load_state_dict(plain.state_dict())
    return plain, recomputing


def loss_of(model: IJepa, folder: Path, drop: bool) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    images = torch.randn(6, 1, 8, 8, generator=generator)
    masks = build_sampler(load_tiny(folder).pipeline).sample(6, generator)
    factors = DropPath(0.5, DEPTH, generator).draw(6) if drop else None
    return model(images, masks, None, factors).loss


def gradients(model: IJepa) -> dict[str, torch.Tensor]:
    return {name: each.grad for name, each in model.named_parameters() if each.grad is not None}


@pytest.mark.parametrize("position", ["sincos", "rope"])
@pytest.mark.parametrize("drop", [False, True])
def test_loss_and_gradients_are_the_same(tmp_path: Path, position: str, drop: bool) -> None:
    models = build_models(tmp_path, f"encoder.position={position}", f"predictor.position={position}")
    losses = [loss_of(model, tmp_path, drop) for model in models]
    for loss in losses:
        loss.backward()
    assert torch.equal(*losses)
    plain, recomputed = (gradients(model) for model in models)
    assert plain.keys() == recomputed.keys()
    assert any(gradient.abs().max() > 0 for gradient in plain.values())
    assert all(torch.equal(plain[name], recomputed[name]) for name in plain)


def test_a_block_keeps_its_input_alone(tmp_path: Path) -> None:
    """Numbers kept for the backward pass grow with the depth by a small part of what they do otherwise."""

    def kept(depth: int) -> list[int]:
        sizes = []
        for model in build_models(tmp_path, f"encoder.size.depth={depth}"):
            count = 0

            def pack(tensor: torch.Tensor) -> torch.Tensor:
                nonlocal count
                count += tensor.numel()
                return tensor

            with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
                loss_of(model, tmp_path, drop=False)
            sizes.append(count)
        return sizes

    shallow, deep = kept(2), kept(8)
    plain, recomputing = (after - before for before, after in zip(shallow, deep, strict=True))
    assert recomputing < plain / 5


def test_without_gradients_nothing_is_computed_twice(tmp_path: Path) -> None:
    _, model = build_models(tmp_path)
    calls = []
    model.context_encoder.blocks[0].register_forward_pre_hook(lambda *arguments: calls.append("context"))
    model.target_encoder.blocks[0].register_forward_pre_hook(lambda *arguments: calls.append("target"))
    model.predictor.blocks[0].register_forward_pre_hook(lambda *arguments: calls.append("predictor"))
    loss = loss_of(model, tmp_path, drop=False)
    assert calls == ["target", "context", "predictor"]
    loss.backward()
    assert sorted(calls) == ["context", "context", "predictor", "predictor", "target"]
    with torch.no_grad():
        loss_of(model, tmp_path, drop=False)
    assert calls[5:] == ["target", "context", "predictor"]


@pytest.mark.slow
def test_a_compiled_encoder_can_recompute() -> None:
    grid, size, images, factors = Grid(4, 4), ModelSize(16, 2, 2), torch.randn(3, 1, 8, 8), torch.rand(3, 2, 2)
    plain, recomputing = (
        VisionTransformer(grid, 2, 1, size, SinCosPosition(ComponentParams(), grid, 16, 2), recompute=recompute)
        for recompute in (False, True)
    )
    recomputing.load_state_dict(plain.state_dict())
    whole = PackedPatches.whole(3, grid.num_patches, torch.device("cpu"))
    encode = (plain.encode, torch.compile(recomputing.encode))
    losses = [each(images, whole, factors).square().mean() for each in encode]
    for loss in losses:
        loss.backward()
    torch.testing.assert_close(*losses)
    for first, second in zip(plain.parameters(), recomputing.parameters(), strict=True):
        torch.testing.assert_close(first.grad, second.grad, rtol=1e-3, atol=1e-6)
