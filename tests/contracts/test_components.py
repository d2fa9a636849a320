"""What every registered component of every family must keep."""

from __future__ import annotations

import re

import pytest
import torch
from pydantic import BaseModel, ValidationError

from jepa_lab.config.fields import section_of
from jepa_lab.config.pipeline import Pipeline
from jepa_lab.grid import Grid
from jepa_lab.losses.base import LOSSES
from jepa_lab.maskers.base import Masks
from jepa_lab.maskers.patches import Patches
from jepa_lab.models.sizes import ENCODER_SIZES, PREDICTOR_SIZES, ModelSize
from jepa_lab.models.vit import VisionTransformer
from jepa_lab.positions.base import POSITIONS, apply_rotation
from jepa_lab.positions.sincos import SinCosPosition
from jepa_lab.registry import FAMILIES, ComponentParams, Entry
from jepa_lab.regularizers.base import REGULARIZERS, Representations
from jepa_lab.targets.base import TARGETS, PatchTarget, TargetInputs
from jepa_lab.training.ema.base import EMA_SCHEDULES
from tests.positions import ENCODER_POSITIONS

EVERY = [pytest.param(entry, id=f"{family}-{entry.name}") for family in FAMILIES for entry in FAMILIES[family]]
REQUIRED = {"custom": {"embed_dim": 24, "depth": 2, "num_heads": 3}}


def default_params(entry: Entry):
    return entry.params_type(**REQUIRED.get(entry.name, {}))


@pytest.mark.parametrize("entry", EVERY)
def test_every_component_is_described_and_cited(entry: Entry) -> None:
    assert entry.summary
    assert "\n" not in entry.summary
    assert entry.source
    assert entry.component.__doc__
    for name, field in entry.params_type.model_fields.items():
        assert field.description, f"{entry.name}.{name} has no description"


@pytest.mark.parametrize("entry", EVERY)
def test_params_are_frozen_closed_and_finite(entry: Entry) -> None:
    params = default_params(entry)
    with pytest.raises(ValidationError):
        entry.params_type(**REQUIRED.get(entry.name, {}), no_such_key=1)
    for name, field in entry.params_type.model_fields.items():
        with pytest.raises(ValidationError):
            setattr(params, name, getattr(params, name))
        if field.annotation is float:
            for value in (float("nan"), float("inf")):
                with pytest.raises(ValidationError):
                    entry.params_type(**{**REQUIRED.get(entry.name, {}), name: value})


def sections(model: type[BaseModel]) -> list[type[BaseModel]]:
    """A settings class and those that it is made of."""
    inner = [section_of(field) for field in model.model_fields.values()]
    return [model, *(found for section in inner if section is not None for found in sections(section))]


PARAMS = {entry.params_type for family in FAMILIES.values() for entry in family} | set(sections(Pipeline))
NUMBERS = [
    pytest.param(model, name, id=f"{model.__qualname__}-{name}")
    for model in sorted(PARAMS, key=lambda model: model.__qualname__)
    for name, field in model.model_fields.items()
    if re.search(r"\b(int|float)\b", str(field.annotation)) and "bool" not in str(field.annotation)
]


@pytest.mark.parametrize(("model", "name"), NUMBERS)
@pytest.mark.parametrize("value", [True, False, [True, True], [0.5, True]], ids=str)
def test_a_truth_value_is_no_number(model: type[BaseModel], name: str, value: object) -> None:
    with pytest.raises(ValidationError) as caught:
        model.model_validate({name: value})
    of_field = [detail for detail in caught.value.errors() if detail["loc"][0] == name]
    assert of_field
    if isinstance(value, bool) and "tuple" not in str(model.model_fields[name].annotation):
        assert {detail["type"] for detail in of_field} <= {"int_type", "float_type"}


@pytest.mark.parametrize("entry", EVERY)
def test_params_survive_a_round_trip(entry: Entry) -> None:
    config = entry.config_type(**REQUIRED.get(entry.name, {}))
    assert entry.config_type.model_validate(config.model_dump(mode="json")) == config


@pytest.mark.parametrize("entry", [pytest.param(POSITIONS.get(name), id=name) for name in ENCODER_POSITIONS])
@pytest.mark.parametrize("grid", [Grid(4, 4), Grid(3, 5)], ids=str)
def test_positions_keep_shape_and_follow_indices(entry: Entry, grid: Grid) -> None:
    position = entry.component(default_params(entry), grid, 24, 3)
    generator = torch.Generator().manual_seed(0)
    for parameter in position.parameters():
        parameter.data.normal_(generator=generator)
    tokens = torch.randn(2, 4, 24, generator=generator)
    indices = torch.tensor([[0, 3, 7, 11], [11, 7, 3, 0]])
    added = position.add(tokens, indices)
    assert added.shape == tokens.shape
    assert torch.equal(position.add(tokens.flip(1), indices.flip(1)), added.flip(1))
    rotation = position.rotation(indices)
    if rotation is None:
        assert not torch.allclose(added, tokens)
        return
    assert torch.equal(added, tokens)
    heads = tokens.unflatten(-1, (3, 8)).transpose(1, 2)
    assert apply_rotation(heads, rotation).shape == heads.shape


@pytest.mark.parametrize("entry", [pytest.param(entry, id=entry.name) for entry in LOSSES])
def test_losses_are_zero_at_the_target_and_grow_with_the_distance(entry: Entry) -> None:
    loss = entry.component(default_params(entry))
    targets = torch.randn(2, 1, 3, 5, 8, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(loss.per_patch(targets.clone(), targets), torch.zeros(2, 1, 3, 5), atol=1e-6)
    near, far = (loss.per_patch(targets + shift, targets) for shift in (0.1, 2.0))
    assert (near > 0).all()
    assert (far > near).all()
    moved = (targets + 0.5).requires_grad_()
    before = loss.per_patch(moved, targets)
    before.sum().backward()
    assert (loss.per_patch(moved - 0.01 * moved.grad, targets) < before).all()


@pytest.mark.parametrize("entry", [pytest.param(entry, id=entry.name) for entry in TARGETS])
def test_targets_have_no_gradient_and_the_shape_of_the_masks(entry: Entry) -> None:
    inputs = TargetInputs(embed_dim=12, depth=2, patch_size=2, num_channels=3)
    assert entry.component.check(default_params(entry), inputs) is None
    target = entry.component(default_params(entry), inputs)
    size = ModelSize(12, 2, 3)
    encoder = VisionTransformer(Grid(3, 3), 2, 3, size, SinCosPosition(ComponentParams(), Grid(3, 3), 12, 3))
    images = torch.rand(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    target.fit(lambda count: iter([images[:count]]))
    masks = Masks(
        Patches(torch.zeros(2, 1, 1, dtype=torch.int64)), Patches(torch.tensor([[[1, 2], [3, 8]]]).expand(2, 2, 2))
    )
    out = target.compute(encoder, images, masks)
    assert out.shape == (2, 2, 2, target.num_features)
    assert not out.requires_grad
    assert torch.isfinite(out).all()
    count, length = target.encoder_sequences(9, 2, 2)
    assert (count == 0) == isinstance(target, PatchTarget)
    assert count * length <= 9


@pytest.mark.parametrize("entry", [pytest.param(entry, id=entry.name) for entry in TARGETS])
def test_padded_target_patches_change_no_valid_target(entry: Entry) -> None:
    inputs = TargetInputs(embed_dim=12, depth=2, patch_size=2, num_channels=3)
    target = entry.component(default_params(entry), inputs)
    size = ModelSize(12, 2, 3)
    encoder = VisionTransformer(Grid(3, 3), 2, 3, size, SinCosPosition(ComponentParams(), Grid(3, 3), 12, 3))
    images = torch.rand(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    target.fit(lambda count: iter([images[:count]]))
    context = Patches(torch.zeros(2, 1, 1, dtype=torch.int64))
    short = torch.tensor([[[1, 2], [3, 8]]]).expand(2, 2, 2)
    long = torch.cat([short, torch.zeros(2, 2, 1, dtype=torch.int64)], dim=2)
    valid = torch.tensor([True, True, False]).expand(2, 2, 3)
    gathered = target.compute(encoder, images, Masks(context, Patches(short)))
    padded = target.compute(encoder, images, Masks(context, Patches(long, valid)))
    assert torch.allclose(padded[:, :, :2], gathered, atol=1e-5)


@pytest.mark.parametrize("entry", [pytest.param(entry, id=entry.name) for entry in REGULARIZERS])
def test_terms_are_finite_scalars_with_gradients_for_what_is_trained_alone(entry: Entry) -> None:
    generator = torch.Generator().manual_seed(0)
    context = torch.randn(4, 1, 5, 6, generator=generator, requires_grad=True)
    predictions = torch.randn(4, 1, 2, 3, 6, generator=generator, requires_grad=True)
    targets = torch.randn(4, 1, 2, 3, 6, generator=generator)
    masks = Masks(
        Patches(torch.zeros(4, 1, 5, dtype=torch.int64), torch.ones(4, 1, 5, dtype=torch.bool)),
        Patches(torch.zeros(4, 2, 3, dtype=torch.int64)),
    )
    terms = entry.component(default_params(entry)).terms(Representations(context, predictions, targets, masks))
    for term in terms.values():
        assert term.value.ndim == 0
        assert torch.isfinite(term.value)
    if terms:
        sum(term.value for term in terms.values()).backward()
        assert context.grad is not None or predictions.grad is not None


@pytest.mark.parametrize("entry", [pytest.param(entry, id=entry.name) for entry in EMA_SCHEDULES])
def test_momentum_is_a_share_at_every_moment(entry: Entry) -> None:
    schedule = entry.component(default_params(entry))
    values = [schedule.momentum(step / 100) for step in range(100)]
    assert all(0 <= value <= 1 for value in values)
    assert values == sorted(values)


@pytest.mark.parametrize("entry", [pytest.param(entry, id=entry.name) for entry in ENCODER_SIZES])
def test_encoder_sizes_have_heads_that_divide_the_width(entry: Entry) -> None:
    assert entry.component(default_params(entry)).resolve().check() is None


@pytest.mark.parametrize("entry", [pytest.param(entry, id=entry.name) for entry in PREDICTOR_SIZES])
@pytest.mark.parametrize("encoder", [ModelSize(192, 6, 6), ModelSize(768, 12, 12)], ids=str)
def test_predictor_sizes_have_heads_that_divide_the_width(entry: Entry, encoder: ModelSize) -> None:
    assert entry.component(default_params(entry)).resolve(encoder).check() is None
