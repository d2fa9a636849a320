"""Properties of the model that any masks and positions must keep."""

from __future__ import annotations

import pytest
import torch

from jepa_lab.grid import Grid
from jepa_lab.losses.smooth_l1 import SmoothL1Loss, SmoothL1Params
from jepa_lab.maskers.base import MASKERS, Masks
from jepa_lab.maskers.batching import batch_context, trim, union_of_targets
from jepa_lab.maskers.patches import Patches
from jepa_lab.models.ijepa import IJepa
from jepa_lab.models.predictor import Predictor
from jepa_lab.models.sizes import ModelSize
from jepa_lab.models.vit import VisionTransformer, initialize_weights
from jepa_lab.positions.base import POSITIONS, PositionEmbedding
from jepa_lab.targets.base import TargetInputs
from jepa_lab.targets.features import FeaturesParams, FeaturesTarget
from tests.positions import PAIRS

GRID = Grid(4, 6)
SIZE, NARROW = ModelSize(24, 2, 3), ModelSize(12, 2, 3)


def build_position(name: str, size: ModelSize) -> PositionEmbedding:
    entry = POSITIONS.get(name)
    return entry.component(entry.params_type(), GRID, size.embed_dim, size.num_heads)


def build_model(position: str = "sincos", of_predictor: str | None = None) -> IJepa:
    encoder = VisionTransformer(GRID, 2, 3, SIZE, build_position(position, SIZE))
    predictor = Predictor(24, NARROW, build_position(of_predictor or position, NARROW))
    predictor.position.follow(encoder.position)
    generator = torch.Generator().manual_seed(0)
    for module in (encoder, predictor):
        initialize_weights(module, generator)
        for parameter in module.parameters():  # larger weights, so that differences cannot hide
            parameter.data.mul_(5)
    return IJepa(
        encoder, predictor, FeaturesTarget(FeaturesParams(), TargetInputs(24, 2, 2, 3)), SmoothL1Loss(SmoothL1Params())
    ).double()


def draw(batch_size: int = 5) -> tuple[torch.Tensor, Masks]:
    generator = torch.Generator().manual_seed(1)
    entry = MASKERS.get("multi_block")
    masker = entry.component(entry.params_type(block_sizes="block", min_context_patches=2), GRID)
    images = torch.rand(batch_size, 3, 8, 12, dtype=torch.float64, generator=generator)
    return images, masker.sample(batch_size, generator)


@pytest.mark.parametrize(("position", "of_predictor"), PAIRS)
@pytest.mark.parametrize("joint", [False, True])
def test_padded_equals_trimmed_equals_image_by_image(position: str, of_predictor: str, joint: bool) -> None:
    model = build_model(position, of_predictor)
    images, masks = draw()
    if joint:
        masks = union_of_targets(masks, GRID.num_patches)
    assert not masks.context.valid.all()
    assert not masks.target.valid.all()
    padded, trimmed = model(images, masks).loss, model(images, trim(masks)).loss
    assert padded.item() == pytest.approx(trimmed.item(), abs=1e-12)
    total, count = 0.0, 0
    for index in range(len(masks)):
        one = masks[index : index + 1]
        dense = Masks(Patches(one.context.indices[one.context.valid][None, None]), one.target)
        patches = int(one.target.valid.sum())
        total += model(images[index : index + 1], dense).loss.item() * patches
        count += patches
    assert padded.item() == pytest.approx(total / count, abs=1e-12)


@pytest.mark.parametrize("batching", ["pad", "subset", "prefix"])
def test_the_context_encoder_never_sees_a_patch_outside_the_context(batching: str) -> None:
    model = build_model()
    images, masks = draw()
    masks = batch_context(masks, batching, torch.Generator().manual_seed(2))
    images.requires_grad_()
    context = model.context_encoder(images, masks.context.sequences())
    context[masks.context.valid[:, 0]].square().sum().backward()
    seen = images.grad.abs().sum(1).unflatten(1, (-1, 2)).unflatten(3, (-1, 2)).sum((2, 4)).flatten(1) > 0
    expected = torch.zeros(len(masks), GRID.num_patches, dtype=torch.bool)
    for index in range(len(masks)):
        expected[index, masks.context.indices[index, 0][masks.context.valid[index, 0]]] = True
    assert torch.equal(seen, expected)


def test_target_blocks_never_attend_to_each_other() -> None:
    model = build_model()
    images, masks = draw()
    both = model(images, masks).predictions
    alone = Masks(masks.context, Patches(masks.target.indices[:, 1:2], masks.target.valid[:, 1:2]))
    only = model(images, alone).predictions
    valid = masks.target.valid[:, 1]
    assert torch.allclose(both[:, 0, 1][valid], only[:, 0, 0][valid], atol=1e-12)


def test_joint_sequence_lets_target_patches_attend_to_each_other() -> None:
    model = build_model()
    images, masks = draw()
    joint = union_of_targets(masks, GRID.num_patches)
    fewer = Masks(joint.context, joint.target.first(1))
    first = model(images, joint).predictions[:, 0, 0, 0]
    second = model(images, fewer).predictions[:, 0, 0, 0]
    assert not torch.allclose(first, second, atol=1e-6)


@pytest.mark.parametrize(("position", "of_predictor"), PAIRS)
def test_the_prediction_depends_on_the_position_of_the_target(position: str, of_predictor: str) -> None:
    model = build_model(position, of_predictor)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "position_embedding" in name:
                parameter.normal_()
    images = torch.rand(1, 3, 8, 12, dtype=torch.float64)
    context = Patches(torch.arange(6)[None, None])
    targets = [Patches(torch.tensor([[[target]]])) for target in (10, 20)]
    outputs = [model(images, Masks(context, target)).predictions for target in targets]
    assert not torch.allclose(outputs[0], outputs[1], atol=1e-6)


def test_several_context_views_are_predicted_from_separately() -> None:
    model = build_model()
    images = torch.rand(2, 3, 8, 12, dtype=torch.float64)
    context = torch.tensor([[0, 1, 2], [3, 4, 5]]).expand(2, 2, 3)
    target = Patches(torch.tensor([[10, 11]]).expand(2, 1, 2))
    both = model(images, Masks(Patches(context), target)).predictions
    for view in range(2):
        one = model(images, Masks(Patches(context[:, view : view + 1]), target)).predictions
        assert torch.allclose(both[:, view : view + 1], one, atol=1e-12)


def test_every_pair_of_a_view_and_a_valid_target_patch_is_counted_and_one_where_there_is_none() -> None:
    context = Patches(torch.tensor([[0, 1, 2], [3, 4, 5]]).expand(2, 2, 3))
    indices, valid = torch.tensor([[10, 11]]).expand(2, 1, 2), torch.tensor([[[True, True]], [[True, False]]])
    model = build_model()
    assert model.count_targets(Masks(context, Patches(indices, valid))).tolist() == [6]
    assert model.count_targets(Masks(context, Patches(indices, torch.zeros_like(valid)))).tolist() == [1]


def test_one_level_adds_nothing_to_the_state_and_nothing_to_what_is_trained() -> None:
    model = build_model()
    assert {name.partition(".")[0] for name in model.state_dict()} == {"context_encoder", "target_encoder", "predictor"}
    encoder, predictor = list(model.encoder_parameters()), list(model.predictor_parameters())
    assert list(map(id, encoder)) == list(map(id, model.context_encoder.parameters()))
    assert list(map(id, predictor)) == list(map(id, model.predictor.parameters()))


def test_last_layers_ends_with_the_output_and_starts_with_earlier_blocks() -> None:
    model = build_model()
    images = torch.rand(2, 3, 8, 12, dtype=torch.float64)
    two = model.context_encoder.last_layers(images, 2)
    assert two.shape == (2, 24, 48)
    assert torch.equal(two[..., 24:], model.context_encoder(images))
    assert not torch.allclose(two[..., :24], two[..., 24:])


def test_initialisation_is_a_function_of_the_generator_alone() -> None:
    torch.manual_seed(1)
    first = build_model().state_dict()
    torch.manual_seed(2)
    second = build_model().state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_weights_start_with_std_002_and_biases_with_zero() -> None:
    encoder = VisionTransformer(Grid(8, 8), 4, 3, ModelSize(96, 4, 3), POSITIONS.get("learned").component(
        POSITIONS.get("learned").params_type(), Grid(8, 8), 96, 3))  # fmt: skip
    initialize_weights(encoder, torch.Generator().manual_seed(0))
    for name, parameter in encoder.named_parameters():
        if name.endswith("bias"):
            assert parameter.abs().max() == 0
        elif parameter.ndim == 1:
            assert torch.equal(parameter, torch.ones_like(parameter))
        else:
            assert parameter.std().item() == pytest.approx(0.02, rel=0.1), name
