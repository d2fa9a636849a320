"""One predictor for all levels: what they share, what a level has of its own, and what is computed with it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from jepa_lab.build import build_model, build_sampler
from jepa_lab.maskers.base import Masks
from jepa_lab.models.ijepa import IJepa
from tests.integration.pipelines import load_tiny

SHARED = ["shared", "shared_level_tokens"]
POSITIONS = ["sincos", "learned", "rope"]
LEVELS = (1, 2, 3)


def build(folder: Path, predictor: str, position: str = "learned", *overrides: str) -> tuple[IJepa, Masks]:
    """A model of three levels and masks for it."""
    given = (
        "encoder.patch_size=1",
        f"hierarchy={{num_levels: 3, downsampling: conv, skip_connections: true, predictor: {predictor}}}",
        f"predictor.position={position}",
        *overrides,
    )
    pipeline = load_tiny(folder, *given).pipeline
    model = build_model(pipeline, 1).double()
    return model, build_sampler(pipeline).sample(8, torch.Generator().manual_seed(0))


def images() -> torch.Tensor:
    return torch.randn(8, 1, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def give_each_level_its_copy(separate: IJepa, shared: IJepa) -> None:
    """Load a model that shares its predictor into one with a predictor for each level."""
    weights, of_predictor = shared.state_dict(), shared.predictor.state_dict()
    for number in range(2):
        prefix = f"hierarchy.predictors.{number}"
        own = {name: weights.pop(name) for name in list(weights) if name.startswith(f"{prefix}.")}
        weights |= {f"{prefix}.{name}": value for name, value in of_predictor.items()} | own
    separate.load_state_dict(weights)


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("predictor", SHARED)
def test_levels_are_predicted_as_by_copies_of_the_predictor_with_their_own_positions(
    tmp_path: Path, predictor: str, position: str
) -> None:
    shared, masks = build(tmp_path, predictor, position)
    separate, _ = build(tmp_path, "separate", position)
    give_each_level_its_copy(separate, shared)
    one, each = shared(images(), masks), separate(images(), masks)
    for name in (f"loss_level_{level}" for level in LEVELS):
        assert one.terms[name].item() == pytest.approx(each.terms[name].item(), rel=1e-12)
    one.loss.backward()
    each.loss.backward()
    own = {name for name, _ in shared.hierarchy.predictors.named_parameters()}
    for name, parameter in shared.predictor.named_parameters():
        copies = [separate.predictor, *separate.hierarchy.predictors]
        if any(found.endswith(name) for found in own):
            copies = copies[:1]
        total = torch.stack([copy.get_parameter(name).grad for copy in copies]).sum(dim=0)
        assert torch.allclose(parameter.grad, total, rtol=1e-9, atol=1e-14), name


@pytest.mark.parametrize(("predictor", "above"), [("shared", (16 + 4) * 8), ("shared_level_tokens", (17 + 5) * 8)])
def test_the_levels_cost_no_more_parameters_than_their_positions_and_tokens(
    tmp_path: Path, predictor: str, above: int
) -> None:
    """Grids of 4x4 and 2x2 cells, positions and tokens of 8 features."""
    model, _ = build(tmp_path, predictor)
    finest = sum(parameter.numel() for parameter in model.predictor.parameters())
    every = list(model.predictor_parameters())
    assert sum(parameter.numel() for parameter in every) == finest + above
    assert len({id(parameter) for parameter in every}) == len(every)
    trained = {id(parameter) for parameter in model.parameters() if parameter.requires_grad}
    assert {id(parameter) for parameter in (*every, *model.encoder_parameters())} == trained


def test_a_level_is_told_by_its_token_alone_where_it_has_one(tmp_path: Path) -> None:
    told, masks = build(tmp_path, "shared_level_tokens")
    untold, _ = build(tmp_path, "shared")
    untold.load_state_dict(told.state_dict(), strict=False)
    first, second = told(images(), masks), untold(images(), masks)
    assert first.terms["loss_level_1"] == second.terms["loss_level_1"]
    assert all(first.terms[f"loss_level_{level}"] != second.terms[f"loss_level_{level}"] for level in LEVELS[1:])
    for level in told.hierarchy.predictors:
        level.mask_token.data.copy_(told.predictor.mask_token.data)
    assert told(images(), masks).loss.item() == second.loss.item()


def test_a_predictor_for_each_level_has_the_names_and_first_weights_it_always_had(tmp_path: Path) -> None:
    separate, _ = build(tmp_path, "separate")
    shared, _ = build(tmp_path, "shared")
    names = {name for name in separate.state_dict() if name.startswith("hierarchy.predictors.1.")}
    assert {name.removeprefix("hierarchy.predictors.1.") for name in names} == set(separate.predictor.state_dict())
    for name, value in separate.predictor.state_dict().items():
        assert torch.equal(value, shared.predictor.state_dict()[name])
