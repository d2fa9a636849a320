"""Drop path: how often, what is dropped, for whom, and that nothing else changes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from jepa_lab.build import build_drop_path, build_model
from jepa_lab.config.checks import check_pipeline
from jepa_lab.errors import ConfigError
from jepa_lab.maskers.base import Masks
from jepa_lab.maskers.patches import Patches
from jepa_lab.models.drop_path import DropPath
from jepa_lab.models.sequences import PaddedSequences
from jepa_lab.models.sizes import ModelSize
from jepa_lab.models.vit import Block
from tests.golden.reference import Reference, build_reference_model, build_reference_step, load_reference, take
from tests.integration.pipelines import load_tiny

SIZE, TWO = ModelSize(24, 1, 3), PaddedSequences((2, 5), None)


@pytest.fixture(scope="module")
def reference() -> Reference:
    return load_reference()


def build_drop(rate: float = 0.5, depth: int = 2, seed: int = 0) -> DropPath:
    return DropPath(rate, depth, torch.Generator().manual_seed(seed))


def test_the_rate_rises_linearly_and_what_is_kept_is_scaled_up() -> None:
    factors = build_drop(rate=0.6, depth=4).draw(20_000)  # [B, 4, 2]
    assert torch.equal(factors[:, 0], torch.ones(20_000, 2))
    for depth, rate in enumerate((0.0, 0.2, 0.4, 0.6)):
        dropped = factors[:, depth] == 0
        assert dropped.float().mean(0) == pytest.approx([rate, rate], abs=0.015)
        assert torch.allclose(factors[:, depth][~dropped], torch.tensor(1 / (1 - rate)))
    assert factors.mean(0) == pytest.approx(torch.ones(4, 2), abs=0.04)


def test_images_blocks_and_branches_are_dropped_independently() -> None:
    dropped = build_drop(rate=0.5, depth=3).draw(20_000) == 0
    both = (dropped[:, 2, 0] & dropped[:, 2, 1]).float().mean()
    assert both == pytest.approx(0.25, abs=0.015)
    across = (dropped[:, 1, 0] & dropped[:, 2, 0]).float().mean()
    assert across == pytest.approx(0.125, abs=0.015)
    neighbours = (dropped[:-1, 2, 0] & dropped[1:, 2, 0]).float().mean()
    assert neighbours == pytest.approx(0.25, abs=0.015)


def test_a_dropped_branch_adds_nothing_and_gets_no_gradient() -> None:
    block, tokens = Block(SIZE), torch.randn(10, 24)
    out = block(tokens, None, TWO, torch.tensor([[0.0, 0.0], [0.0, 2.0]]).repeat_interleave(5, dim=0))
    assert torch.equal(out[:5], tokens[:5])
    assert torch.allclose(out[5:], tokens[5:] + 2 * block.mlp(block.norm2(tokens[5:])), atol=1e-6)
    out.square().sum().backward()
    assert block.attn.qkv.weight.grad.abs().max() == 0
    assert block.mlp.fc1.weight.grad.abs().max() > 0


def test_over_all_draws_a_branch_is_the_plain_one() -> None:
    block, tokens, keep = Block(SIZE), torch.randn(10, 24), 0.7

    def output(attention: float, mlp: float) -> torch.Tensor:
        return block(tokens, None, TWO, torch.tensor([[attention, mlp]]).expand(10, 2))

    expected = keep * output(1.0, 1 / keep) + (1 - keep) * output(1.0, 0.0)
    assert torch.allclose(expected, block(tokens, None, TWO), atol=1e-5)
    block.mlp.fc2.weight.data.zero_()  # so that the attention's branch is the last
    expected = keep * output(1 / keep, 1.0) + (1 - keep) * output(0.0, 1.0)
    assert torch.allclose(expected, block(tokens, None, TWO), atol=1e-5)


def test_factors_of_one_are_exactly_the_plain_model(reference: Reference) -> None:
    model = build_reference_model(reference)
    images, masks = reference.images(0), reference.masks(0)
    ones = torch.ones(len(images), 2, 2)
    assert torch.equal(model(images, masks, None, ones).predictions, model(images, masks).predictions)


def test_the_context_encoder_alone_drops(reference: Reference) -> None:
    model = build_reference_model(reference)
    images, masks = reference.images(0), reference.masks(0)
    plain, dropped = model(images, masks), model(images, masks, None, build_drop().draw(len(images)))
    assert torch.equal(plain.targets, dropped.targets)
    assert not torch.allclose(plain.predictions, dropped.predictions)


def test_the_context_views_of_an_image_share_its_draw(reference: Reference) -> None:
    model, images = build_reference_model(reference), reference.images(0)
    masks = reference.masks(0)
    context = torch.cat(
        [masks.context.indices, masks.context.indices.flip(-1)], dim=1
    )  # another order of the same patches
    factors = build_drop().draw(len(images))
    both = model(images, Masks(Patches(context), masks.target), None, factors).predictions
    assert torch.allclose(both[:, 0], both[:, 1], atol=1e-10)
    assert torch.allclose(both[:, :1], model(images, masks, None, factors).predictions, atol=1e-10)


def test_accumulated_parts_drop_as_the_whole_batch_does(reference: Reference) -> None:
    whole = build_reference_step(build_reference_model(reference))
    parts = build_reference_step(build_reference_model(reference))
    parts.parts = 4
    drop = build_drop()
    for number in range(3):
        images, masks = reference.images(number), reference.masks(number)
        factors = drop.draw(len(images))
        first, second = (take(step, images, masks, number + 1, factors) for step in (whole, parts))
        assert second.loss.item() == pytest.approx(first.loss.item(), abs=1e-12)
    for name, tensor in whole.model.state_dict().items():
        assert torch.allclose(tensor, parts.model.state_dict()[name], atol=1e-12), name


def test_a_pipeline_drops_at_its_rate_from_a_generator_of_its_own_and_by_default_not_at_all(tmp_path: Path) -> None:
    cpu = torch.device("cpu")
    assert build_drop_path(load_tiny(tmp_path).pipeline, cpu) is None
    deep = ("encoder.size.depth=3", "encoder.drop_path_rate=0.5")
    drop = build_drop_path(load_tiny(tmp_path, *deep).pipeline, cpu)
    other = build_drop_path(load_tiny(tmp_path, *deep, "seed=1").pipeline, cpu)
    assert drop.keep_probability.flatten() == pytest.approx(torch.tensor([1.0, 0.75, 0.5]))
    assert not torch.equal(drop.draw(64), other.draw(64))


def test_an_encoder_of_one_block_cannot_drop(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"drop_path_rate=0.5 needs an encoder of at least 2 blocks.*has 1"):
        check_pipeline(load_tiny(tmp_path, "encoder.drop_path_rate=0.5"))
    assert build_model(load_tiny(tmp_path).pipeline, 1).context_encoder.size.depth == 1
