"""Closed-form counts of operations equal those of PyTorch's own counter, however tokens lie in memory."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from jepa_lab.arithmetic import useful_flops_per_image
from jepa_lab.build import build_model, build_sampler
from jepa_lab.maskers.base import Masks
from jepa_lab.maskers.patches import Patches
from jepa_lab.models.flops import Work, computed_flops, transformer_flops, useful_flops
from jepa_lab.models.ijepa import IJepa
from jepa_lab.models.packing import PackedSizes, Packer, Packing, WithoutPadding, pack_into, pad
from jepa_lab.models.sizes import ModelSize
from tests.integration.pipelines import load_tiny
from tests.packers import pack_exactly

BATCH = 6


def with_room(masks: Masks, num_patches: int, level: int = 0) -> Packing:
    sizes = PackedSizes(*(int(size) + 17 for size in PackedSizes.of(masks)))
    return pack_into(masks, num_patches, sizes, has_kernel=False)


WAYS: dict[str, Packer] = {
    "padded": pad,
    "exact": pack_exactly,
    "padded for attention": WithoutPadding(1, 1),
    "fixed": with_room,
}


def model_and_masks(folder: Path, *overrides: str) -> tuple[IJepa, Masks]:
    small = ("data.image_size=16", f"training.batch_size={BATCH}", "encoder.size.depth=2", "predictor.size.depth=2")
    pipeline = load_tiny(folder, *small, *overrides).pipeline
    return build_model(pipeline, 1), build_sampler(pipeline).sample(BATCH, torch.Generator().manual_seed(0))


def counted(model: IJepa, masks: Masks, packings: list[Packing]) -> int:
    """What PyTorch counts: it knows no fused attention of a CPU, so attention is made of products."""
    counter = FlopCounterMode(display=False)
    with counter, sdpa_kernel(SDPBackend.MATH):
        model(torch.rand(BATCH, 1, 16, 16), masks, packings=packings).loss.backward()
    return counter.get_total_flops()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "overrides",
    [
        ("masker=multi_block",),
        ("masker=multi_context", "predictor.target_sequences=joint"),
        ("masker=random", "context_batching=prefix", "encoder.patch_size=4"),
        ("masker=multi_block", "target.normalization=batch_norm"),
        ("masker=multi_block", "target.encode=target_patches_only"),
        ("masker=multi_block", "target=pixels"),
        ("masker=multi_block", "hierarchy={num_levels: 3, downsampling: conv}"),
        ("masker=random", "hierarchy={num_levels: 2, downsampling: pooling, skip_connections: true}"),
        ("masker=multi_block", "hierarchy={num_levels: 3, predictor: shared}"),
    ],
    ids=" ".join,
)
def test_computed_operations_equal_the_count_of_torch(tmp_path: Path, way: str, overrides: tuple[str, ...]) -> None:
    model, masks = model_and_masks(tmp_path, *overrides)
    packings = model.pack(masks, WAYS[way])
    embed = 2 * model.context_encoder.patch_embed.proj.weight.numel() * len(packings[0].context.images)
    ours = computed_flops(model, masks, packings, aligned=True) - embed  # images want no gradient
    assert counted(model, masks, packings) == pytest.approx(ours, rel=1e-12)


def test_useful_operations_are_those_of_every_image_by_itself(tmp_path: Path) -> None:
    model, masks = model_and_masks(tmp_path, "masker=multi_context", "hierarchy.num_levels=2")
    alone = [masks[number : number + 1] for number in range(BATCH)]
    assert useful_flops(model, masks) == pytest.approx(sum(useful_flops(model, each) for each in alone), rel=1e-12)


def test_without_padding_useful_is_what_is_computed_and_the_rest_of_the_last_blocks(tmp_path: Path) -> None:
    model, _ = model_and_masks(tmp_path, "target.normalization=none")
    blocks = torch.arange(30, 50).expand(BATCH, 20).unflatten(1, (2, 10))
    masks = Masks(Patches(torch.arange(20).expand(BATCH, 1, 20)), Patches(blocks))
    unread_context = BATCH * 2 * 20  # tokens of the predictor, forward and backward
    unread_targets = BATCH * (64 - 20)  # patches that the target encoder need not finish
    rest = 3 * unread_context * after_attention(model.predictor.size)
    rest += unread_targets * after_attention(model.context_encoder.size)
    computed = computed_flops(model, masks, model.pack(masks, pad), aligned=False)
    assert useful_flops(model, masks) == pytest.approx(computed + rest, rel=1e-12)


def after_attention(size: ModelSize) -> int:
    """Operations of a block on a token after its attention: the projection and the MLP."""
    return 2 * size.embed_dim**2 + 4 * size.embed_dim * int(size.embed_dim * size.mlp_ratio)


def test_a_transformer_does_what_its_layers_do() -> None:
    size = ModelSize(8, 3, 2, mlp_ratio=2.0)
    block = 5 * (2 * 8 * 24 + 2 * 8 * 8 + 2 * 2 * 8 * 16) + 2 * 2 * 8 * 25
    assert transformer_flops(size, Work(5, 25, 5)) == 3 * block
    assert transformer_flops(size, Work(5, 25, 2)) == 3 * block - 3 * (2 * 8 * 8 + 2 * 2 * 8 * 16)


def test_levels_above_the_patches_add_operations(tmp_path: Path) -> None:
    def useful(*overrides: str) -> float:
        return useful_flops_per_image(load_tiny(tmp_path, "data.image_size=16", *overrides).pipeline, 1)

    levels = "hierarchy={{num_levels: 2, downsampling: {}}}"
    assert useful() < useful(levels.format("pooling")) < useful(levels.format("conv"))
