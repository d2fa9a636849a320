"""Coarser levels: features against loops, what is hidden, and what one level is."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from jepa_lab.downsampling.base import DOWNSAMPLINGS
from jepa_lab.downsampling.conv import Conv
from jepa_lab.downsampling.pooling import Pooling
from jepa_lab.grid import Grid
from jepa_lab.losses.smooth_l1 import SmoothL1Loss, SmoothL1Params
from jepa_lab.maskers.base import MASKERS, Masks
from jepa_lab.maskers.patches import Patches
from jepa_lab.models.hierarchy import Hierarchy, Pyramid
from jepa_lab.models.ijepa import IJepa
from jepa_lab.models.level_masks import level_grids
from jepa_lab.models.packing import pad
from jepa_lab.models.predictor import Predictor
from jepa_lab.models.sizes import ModelSize
from jepa_lab.models.vit import VisionTransformer, initialize_weights
from jepa_lab.positions.sincos import SinCosPosition
from jepa_lab.registry import ComponentParams, Entry
from jepa_lab.targets.base import TargetInputs
from jepa_lab.targets.features import FeaturesParams, FeaturesTarget
from tests.golden.reference import build_reference_model, build_reference_step, load_reference, take

GRID, WIDTH = Grid(7, 10), 24
GRIDS = [Grid(8, 8), Grid(7, 10), Grid(5, 3)]
NOTHING = ComponentParams()


def draw(grid: Grid, batch_size: int = 16) -> Masks:
    entry = MASKERS.get("multi_block")
    masker = entry.component(entry.params_type(num_targets=2, min_context_patches=2), grid)
    return masker.sample(batch_size, torch.Generator().manual_seed(0))


def build_pyramid(kind: str = "pooling", num_levels: int = 3, skips: bool = False, grid: Grid = GRID) -> Pyramid:
    grids = level_grids(grid, num_levels)
    component = DOWNSAMPLINGS.get(kind).component
    pyramid = Pyramid(grids, [component(NOTHING, WIDTH) for _ in grids[1:]], skips).double()
    initialize_weights(pyramid, torch.Generator().manual_seed(3))
    return pyramid


def build_model(kind: str = "pooling", num_levels: int = 3, skips: bool = False, weights: object = None) -> IJepa:
    size, narrow = ModelSize(WIDTH, 2, 3), ModelSize(12, 1, 3)
    encoder = VisionTransformer(GRID, 2, 3, size, SinCosPosition(NOTHING, GRID, WIDTH, 3))
    grids = level_grids(GRID, num_levels)
    predictor, *coarser = (Predictor(WIDTH, narrow, SinCosPosition(NOTHING, grid, 12, 3)) for grid in grids)
    generator = torch.Generator().manual_seed(0)
    for module in (encoder, predictor, *coarser):
        initialize_weights(module, generator)
        for parameter in module.parameters():
            parameter.data.mul_(5)
    hierarchy = Hierarchy(build_pyramid(kind, num_levels, skips), coarser, weights or (1.0,) * num_levels)
    target = FeaturesTarget(FeaturesParams(), TargetInputs(WIDTH, 2, 2, 3))
    return IJepa(encoder, predictor, target, SmoothL1Loss(SmoothL1Params()), hierarchy=hierarchy).double()


def images(batch_size: int = 16) -> Tensor:
    return torch.rand(batch_size, 3, 14, 20, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_children_and_parents_are_the_cells_at_twice_the_place(grid: Grid) -> None:
    children, exists = grid.children()
    width = grid.coarser().width
    found = {cell: children[cell][exists[cell]].tolist() for cell in range(grid.coarser().num_patches)}
    for patch in range(grid.num_patches):
        row, column = divmod(patch, grid.width)
        parent = (row // 2) * width + column // 2
        assert patch in found[parent]
        assert grid.parents()[patch] == parent
    assert sum(map(len, found.values())) == grid.num_patches
    assert children[0].tolist()[:2] == [0, 1]


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_pooling_is_the_average_of_the_seen_fine_cells(grid: Grid) -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(4, grid.num_patches, WIDTH, generator=generator, dtype=torch.float64)
    seen = torch.rand(4, grid.num_patches, generator=generator) < 0.5
    pooled = build_pyramid(num_levels=2, grid=grid)(features, seen)[1]
    children, exists = grid.children()
    for cell in range(grid.coarser().num_patches):
        for image in range(4):
            fine = [patch for patch in children[cell][exists[cell]].tolist() if seen[image, patch]]
            if fine:
                assert torch.allclose(pooled[image, cell], features[image, fine].mean(dim=0))


def test_conv_of_an_even_grid_that_is_seen_is_that_of_torch() -> None:
    grid = Grid(4, 6)
    pyramid = build_pyramid("conv", 2, grid=grid)
    features = torch.randn(2, 24, WIDTH, dtype=torch.float64)
    ours = pyramid(features, torch.ones(2, 24, dtype=torch.bool))[1]
    conv = pyramid.downsamplings[0].conv
    as_image = features.transpose(1, 2).unflatten(2, (4, 6))
    theirs = F.conv2d(as_image, conv.weight, conv.bias, stride=2).flatten(2).transpose(1, 2)
    assert torch.allclose(ours, theirs)


def test_conv_marks_what_is_missing_and_what_lies_beyond_the_edge() -> None:
    conv = Conv(NOTHING, WIDTH)
    initialize_weights(conv, torch.Generator().manual_seed(0))
    children = torch.zeros(1, 1, 4, WIDTH)
    seen = torch.tensor([[[True, True, False, True]]])
    hidden, shown = conv(children, seen), conv(children, torch.ones_like(seen))
    assert not torch.allclose(hidden, shown)
    marked = children.clone()
    marked[0, 0, 2] = conv.missing[0]
    assert torch.allclose(conv(marked, torch.ones_like(seen)), hidden)


@pytest.mark.parametrize("entry", list(DOWNSAMPLINGS), ids=lambda entry: entry.name)
@pytest.mark.parametrize("skips", [False, True])
def test_what_stands_at_hidden_cells_never_matters(entry: Entry, skips: bool) -> None:
    pyramid = build_pyramid(entry.name, skips=skips)
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(4, GRID.num_patches, WIDTH, generator=generator, dtype=torch.float64)
    seen = torch.rand(4, GRID.num_patches, generator=generator) < 0.4
    other = torch.where(seen.unsqueeze(-1), features, torch.full_like(features, 1e6))
    for first, second, level in zip(pyramid(features, seen), pyramid(other, seen), range(3), strict=True):
        of_level = seen
        for grid in pyramid.grids[:level]:
            children, exists = grid.children()
            of_level = (of_level[:, children] & exists).any(dim=-1)
        assert torch.equal(first[of_level], second[of_level])


@pytest.mark.parametrize("kind", ["pooling", "conv"])
def test_hidden_pixels_change_no_prediction_at_any_level(kind: str) -> None:
    model, masks, given = build_model(kind, skips=True), draw(GRID), images()
    seen = masks.context.coverage(GRID.num_patches).any(dim=1)  # [B, N]
    hidden = ~seen.unflatten(1, (7, 10)).repeat_interleave(2, dim=1).repeat_interleave(2, dim=2)
    other = torch.where(hidden[:, None], torch.rand_like(given), given)
    of_levels, packings = model.hierarchy.masks(masks), model.pack(masks, pad)
    first, second = (
        zip(
            model.hierarchy.contexts(model.context_encoder.encode(pixels, packings[0].context), of_levels, packings),
            model.hierarchy.targets(model.target, model.target_encoder, pixels, of_levels, packings),
            strict=True,
        )
        for pixels in (given, other)
    )
    for (context, target), (other_context, other_target), level in zip(first, second, of_levels, strict=True):
        valid = level.context.validity().flatten()
        assert torch.allclose(context[valid], other_context[valid])
        assert not torch.allclose(target, other_target)


def test_skip_connections_add_the_features_above() -> None:
    features = torch.randn(2, GRID.num_patches, WIDTH, dtype=torch.float64)
    seen = torch.ones(2, GRID.num_patches, dtype=torch.bool)
    plain, skipped = build_pyramid("conv")(features, seen), build_pyramid("conv", skips=True)(features, seen)
    assert torch.equal(skipped[2], plain[2])
    middle, fine = GRID.coarser(), GRID
    assert torch.allclose(skipped[1], plain[1] + plain[2][:, middle.parents()])
    assert torch.allclose(skipped[0], plain[0] + skipped[1][:, fine.parents()])


def test_the_loss_is_the_weighted_sum_of_the_levels() -> None:
    weights = (1.0, 0.7, 0.5)
    out = build_model(weights=weights)(images(), draw(GRID))
    levels = [out.terms[f"loss_level_{level}"].item() for level in (1, 2, 3)]
    assert out.loss.item() == pytest.approx(sum(w * loss for w, loss in zip(weights, levels, strict=True)))
    assert all(loss > 0 for loss in levels)


def test_a_level_predicts_the_normalised_average_of_the_target_encoder_s_features() -> None:
    model, masks, given = build_model(num_levels=2), draw(GRID), images()
    features = model.target_encoder(given)
    of_levels = model.hierarchy.masks(masks)
    packings = model.pack(masks, pad)
    targets = model.hierarchy.targets(model.target, model.target_encoder, given, of_levels, packings)[1]
    children, exists = GRID.children()
    image, block = 3, 1
    cell = of_levels[1].target.indices[image, block, 0]
    fine = children[cell][exists[cell]]
    assert torch.allclose(targets[image, block, 0], F.layer_norm(features[image, fine].mean(dim=0), (WIDTH,)))


@pytest.mark.parametrize("kind", ["pooling", "conv"])
@pytest.mark.parametrize("skips", [False, True])
def test_parts_of_a_batch_add_up_to_the_whole_at_every_level(kind: str, skips: bool) -> None:
    model, masks, given = build_model(kind, skips=skips), draw(GRID), images()
    whole = model(given, masks)
    count = model.count_targets(masks)
    parts = [model(given[part], masks[part], count) for part in (slice(0, 5), slice(5, 16))]
    assert sum(part.loss for part in parts).item() == pytest.approx(whole.loss.item(), abs=1e-12)
    for name, value in whole.terms.items():
        assert sum(part.terms[name] for part in parts).item() == pytest.approx(value.item(), abs=1e-12)


def test_blocks_without_a_cell_at_a_level_count_for_nothing_and_leave_gradients_finite() -> None:
    model = build_model(num_levels=3)
    alone = torch.tensor([[[3], [37]]]).expand(2, 2, 1)  # single patches: never half of a coarse cell
    context = torch.arange(40, 60).expand(2, 1, 20)
    masks = Masks(Patches(context), Patches(alone))
    assert not model.hierarchy.masks(masks)[1].target.counts().any()
    out = model(images(2), masks)
    assert out.terms["loss_level_2"] == 0
    out.loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    assert torch.isfinite(out.loss)


def test_the_target_s_pyramid_follows_by_ema_alone() -> None:
    model = build_model("conv")
    context, target = (getattr(model.hierarchy, f"{side}_pyramid") for side in ("context", "target"))
    assert all(torch.equal(a, b) for a, b in zip(context.parameters(), target.parameters(), strict=True))
    assert not any(parameter.requires_grad for parameter in target.parameters())
    for parameter in context.parameters():
        parameter.data.add_(1.0)
    before = [parameter.clone() for parameter in target.parameters()]
    model.update_target_encoder(torch.tensor(0.1))
    for old, new in zip(before, target.parameters(), strict=True):
        assert torch.allclose(new, old + 0.1)
    out = model(images(), draw(GRID))
    out.loss.backward()
    assert all(p.grad is None for p in target.parameters())
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in context.parameters())


def test_pyramid_and_all_predictors_are_counted_among_what_is_trained() -> None:
    model = build_model("conv")
    trained = {id(parameter) for parameter in model.parameters() if parameter.requires_grad}
    encoder = {id(parameter) for parameter in model.encoder_parameters()}
    predictor = {id(parameter) for parameter in model.predictor_parameters()}
    assert encoder | predictor == trained
    assert not encoder & predictor


def test_pooling_has_nothing_to_learn() -> None:
    assert not list(Pooling(NOTHING, WIDTH).parameters())


@pytest.mark.parametrize("skips", [False, True])
def test_one_level_is_the_plain_model_number_by_number(skips: bool) -> None:
    reference = load_reference()
    steps = []
    for levels in (False, True):
        model = build_reference_model(reference)
        if levels:
            model.hierarchy = Hierarchy(Pyramid([Grid(8, 8)], [], skips), [], (1.0,))
        steps.append(build_reference_step(model))
    losses = [
        [take(step, reference.images(n), reference.masks(n), n + 1).loss.item() for n in range(6)] for step in steps
    ]
    # To rounding: without levels the target encoder does not finish what is no target.
    assert losses[0] == pytest.approx(losses[1], abs=1e-14)
    assert losses[1] == pytest.approx(reference.config["losses"], abs=1e-10)
    first, second = (step.model.state_dict() for step in steps)
    assert set(first) == set(second)
    assert all(torch.allclose(first[name], second[name], rtol=0, atol=1e-12) for name in first)
