"""A predictor that has the encoder's positions, against the guide's own sketch of it."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from jepa_lab.build import build_model
from jepa_lab.config.checks import check_pipeline
from jepa_lab.errors import ConfigError
from jepa_lab.maskers.base import Masks
from jepa_lab.maskers.patches import Patches
from jepa_lab.models.ijepa import IJepa
from jepa_lab.models.vit import Block
from jepa_lab.positions.from_encoder import PositionFromEncoder
from jepa_lab.positions.learned import LearnedPosition
from tests.integration.pipelines import load_tiny

CONTEXT, TARGETS = [0, 2, 5, 6, 9], [3, 10, 11]
MASKS = Masks(Patches(torch.tensor([[CONTEXT]]).expand(2, 1, 5)), Patches(torch.tensor([[TARGETS]]).expand(2, 1, 3)))


def build(folder: Path, *overrides: str) -> IJepa:
    pipeline = load_tiny(folder, "predictor.position=from_encoder", *overrides).pipeline
    model = build_model(pipeline, 1).double()
    for name, parameter in model.named_parameters():  # larger weights, so that differences cannot hide
        parameter.data.mul_(1 if name.startswith("target_encoder") else 5)
    return model


def images() -> Tensor:
    return torch.randn(2, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


def encoder_positions(model: IJepa) -> Tensor:
    """[N, D]"""
    position, num_patches = model.context_encoder.position, model.context_encoder.grid.num_patches
    width = model.context_encoder.size.embed_dim
    return position.add(torch.zeros(1, num_patches, width, dtype=torch.float64), torch.arange(num_patches)[None])[0]


def attend(block: Block, tokens: Tensor) -> Tensor:
    query, key, value = block.attn.qkv(tokens).unflatten(-1, (3, block.attn.num_heads, -1)).permute(2, 0, 3, 1, 4)
    return block.attn.proj(F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))


def as_the_guide_predicts(model: IJepa, context: Tensor) -> Tensor:
    """ctx = input_proj(tokens + pos); masks = mask_token + input_proj(pos); the rest is a transformer."""
    predictor, positions = model.predictor, encoder_positions(model)
    seen = predictor.embed(context + positions[CONTEXT])
    asked = predictor.mask_token + predictor.embed(positions[TARGETS]).expand(len(context), -1, -1)
    tokens = torch.cat([seen, asked], dim=1)
    for block in predictor.blocks:
        tokens = tokens + attend(block, block.norm1(tokens))
        tokens = tokens + block.mlp(block.norm2(tokens))
    return predictor.proj(predictor.norm(tokens))[:, -len(TARGETS) :]


@pytest.mark.parametrize("of_encoder", ["learned", "sincos"])
def test_predictions_and_gradients_are_those_of_the_guide_s_sketch(of_encoder: str, tmp_path: Path) -> None:
    model = build(tmp_path, f"encoder.position={of_encoder}")
    trained = [each for each in model.parameters() if each.requires_grad]
    predicted = model(images(), MASKS).predictions[:, 0, 0]
    context = model.context_encoder(images(), Patches(MASKS.context.indices[:, 0]))
    expected = as_the_guide_predicts(model, context)
    assert (predicted - expected).abs().max() < 1e-10
    weights = torch.randn(predicted.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    ours, theirs = (torch.autograd.grad((each * weights).sum(), trained) for each in (predicted, expected))
    assert all((mine - other).abs().max() < 1e-10 for mine, other in zip(ours, theirs, strict=True))


def test_the_predictor_trains_the_context_encoder_s_positions_and_the_target_encoder_s_follow_by_ema(
    tmp_path: Path,
) -> None:
    model = build(tmp_path, "encoder.position=learned")
    packing = model.pack(MASKS, model.packer_for(torch.device("cpu")))[0]
    features = torch.randn(10, model.context_encoder.size.embed_dim, dtype=torch.float64)  # of no encoder
    model.predictor(features, packing.pairs, packing.context.patches).sum().backward()
    position, followed = model.context_encoder.position, model.target_encoder.position
    assert isinstance(position, LearnedPosition)
    assert isinstance(followed, LearnedPosition)
    assert set(position.position_embedding.grad.abs().sum(dim=1).nonzero().flatten().tolist()) >= {*CONTEXT, *TARGETS}
    assert followed.position_embedding.grad is None
    before = followed.position_embedding.clone()
    model.update_target_encoder(torch.tensor(0.5))
    assert torch.allclose(followed.position_embedding, (before + position.position_embedding) / 2)


def test_positions_are_the_encoder_s_parameters_and_are_saved_once(tmp_path: Path) -> None:
    model = build(tmp_path, "encoder.position=learned")
    holders = [name for name in model.state_dict() if name.endswith("position_embedding")]
    assert holders == ["context_encoder.position.position_embedding", "target_encoder.position.position_embedding"]
    assert not [name for name, _ in model.predictor.named_parameters() if "position" in name]
    position = model.context_encoder.position
    assert isinstance(position, LearnedPosition)
    assert any(each is position.position_embedding for each in model.encoder_parameters())
    assert not any(each is position.position_embedding for each in model.predictor_parameters())


def test_a_model_that_takes_up_weights_or_is_copied_has_its_own_encoder_s_positions(tmp_path: Path) -> None:
    first = build(tmp_path, "encoder.position=learned", "seed=1")
    second = build(tmp_path, "encoder.position=learned", "seed=2")
    second.load_state_dict(first.state_dict())
    third = copy.deepcopy(first)
    expected = first(images(), MASKS).predictions
    for parameter in first.parameters():
        parameter.data.zero_()
    for other in (second, third):
        assert torch.equal(other(images(), MASKS).predictions, expected)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ("encoder.position=from_encoder",),
            r"^.*encoder\.position: from_encoder is for the predictor alone.*; choose",
        ),
        (
            ("encoder.position=rope", "predictor.position=from_encoder"),
            r"predictor\.position: .*'rope' are not added; choose 'rope' for the predictor, too, or learned or sincos",
        ),
        (
            ("encoder.position=learned", "predictor.position=from_encoder", "hierarchy.num_levels=2"),
            r"predictor\.position: from_encoder knows the encoder's 4x4 patches.* 2x2 cells; choose",
        ),
    ],
)
def test_where_it_does_not_fit_the_message_says_what_does(
    overrides: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        check_pipeline(load_tiny(tmp_path, *overrides))


def test_a_predictor_without_an_encoder_is_a_mistake_of_ours(tmp_path: Path) -> None:
    model = build(tmp_path, "encoder.position=learned")
    position = model.predictor.position
    assert isinstance(position, PositionFromEncoder)
    position._encoder = ()
    with pytest.raises(AssertionError, match="encoder's embedding"):
        model(images(), MASKS)
