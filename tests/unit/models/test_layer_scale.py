"""LayerScale: what it multiplies, how it starts, and that without it nothing is different."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from jepa_lab.build import build_model
from jepa_lab.models.sequences import PaddedSequences
from jepa_lab.models.sizes import ModelSize
from jepa_lab.models.vit import Block
from jepa_lab.training.parameter_groups import Decay, parameter_decays
from tests.integration.pipelines import load_tiny

SIZE, TWO = ModelSize(24, 1, 3), PaddedSequences((2, 5), None)


def test_at_zero_a_block_is_the_identity() -> None:
    tokens = torch.randn(10, 24)
    assert torch.equal(Block(SIZE, layer_scale=0.0)(tokens, None, TWO), tokens)
    assert not torch.equal(Block(SIZE)(tokens, None, TWO), tokens)


def test_each_branch_is_multiplied_by_its_own_factors() -> None:
    block = Block(SIZE, layer_scale=1.0)
    tokens, gamma = torch.randn(10, 24), torch.randn(2, 24)
    block.scale1.gamma.data, block.scale2.gamma.data = gamma
    middle = tokens + gamma[0] * block.attn(block.norm1(tokens), None, TWO)
    expected = middle + gamma[1] * block.mlp(block.norm2(middle))
    assert torch.allclose(block(tokens, None, TWO), expected, atol=1e-6)


def test_without_it_a_block_has_no_further_parameters_and_with_ones_it_computes_the_same() -> None:
    plain, scaled = Block(SIZE), Block(SIZE, layer_scale=1.0)
    assert set(dict(scaled.named_parameters())) - set(dict(plain.named_parameters())) == {
        "scale1.gamma",
        "scale2.gamma",
    }
    scaled.load_state_dict(plain.state_dict(), strict=False)
    tokens = torch.randn(10, 24)
    assert torch.equal(scaled(tokens, None, TWO), plain(tokens, None, TWO))


@pytest.mark.parametrize(("section", "part"), [("encoder", "context_encoder"), ("predictor", "predictor")])
def test_a_pipeline_starts_its_factors_at_the_value_given_and_does_not_decay_them(
    tmp_path: Path, section: str, part: str
) -> None:
    plain = build_model(load_tiny(tmp_path).pipeline, 1)
    pipeline = load_tiny(tmp_path, f"{section}.layer_scale=0.25").pipeline
    model = build_model(pipeline, 1)
    found = {name: parameter for name, parameter in model.named_parameters() if name.endswith("gamma")}
    copies = {"context_encoder", "target_encoder"} if section == "encoder" else {"predictor"}
    assert {name.split(".")[0] for name in found} == copies
    assert len(found) == 2 * len(copies)
    assert all(torch.equal(gamma, torch.full_like(gamma, 0.25)) for gamma in found.values())
    weights = model.state_dict()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in plain.state_dict().items())
    decays = parameter_decays(model, pipeline.optimizer)
    assert [decays[name] for name in found if name.startswith(part)] == [Decay.NONE, Decay.NONE]


def test_the_target_encoder_follows_the_factors(tmp_path: Path) -> None:
    model = build_model(load_tiny(tmp_path, "encoder.layer_scale=0.5").pipeline, 1)
    model.context_encoder.blocks[0].scale1.gamma.data.fill_(1.0)
    model.update_target_encoder(torch.tensor(0.25))
    assert torch.allclose(model.target_encoder.blocks[0].scale1.gamma, torch.tensor(0.625))
