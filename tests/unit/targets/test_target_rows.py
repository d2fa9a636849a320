"""Of whole images only target patches are read: nothing is computed for the others after the last attention."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from jepa_lab.build import build_model, build_sampler
from jepa_lab.maskers.base import Masks
from jepa_lab.maskers.patches import Patches
from jepa_lab.models.ijepa import IJepa
from jepa_lab.models.packing import Packer, pad
from jepa_lab.targets.features import FeaturesTarget
from jepa_lab.targets.rows import TargetRows
from tests.integration.pipelines import load_tiny
from tests.packers import pack_exactly

BATCH, NUM_PATCHES = 5, 64


def model_and_masks(folder: Path, *overrides: str) -> tuple[IJepa, Masks, Tensor]:
    settings = ("data.image_size=16", f"training.batch_size={BATCH}", "encoder.size.depth=2", *overrides)
    pipeline = load_tiny(folder, *settings).pipeline
    generator = torch.Generator().manual_seed(0)
    masks = build_sampler(pipeline).sample(BATCH, generator)
    return build_model(pipeline, 1).double(), masks, torch.randn(BATCH, 1, 16, 16, generator=generator).double()


def tokens_of_the_last_mlp(model: IJepa, masks: Masks, images: Tensor, packer: Packer) -> list[int]:
    """How many tokens go through the two last MLPs of the target encoder."""
    found: list[int] = []
    for block in model.target_encoder.blocks:
        assert isinstance(block, nn.Module)
        block.get_submodule("mlp").register_forward_hook(lambda mlp, given, out: found.append(len(given[0])))
    model(images, masks, packings=model.pack(masks, packer))
    return found


MULTI_BLOCK = ("masker={name: multi_block, num_targets: 3, min_context_patches: 1}",)
SMALL_BLOCKS = ("masker={name: single_block, min_context_patches: 1}",)


@pytest.mark.parametrize("normalization", ["layer_norm", "none"])
def test_features_are_finished_for_every_target_patch_once(tmp_path: Path, normalization: str) -> None:
    model, masks, images = model_and_masks(tmp_path, *MULTI_BLOCK, f"target.normalization={normalization}")
    union = int(masks.target.coverage(NUM_PATCHES).any(dim=1).sum())
    assert union < BATCH * NUM_PATCHES
    assert tokens_of_the_last_mlp(model, masks, images, pack_exactly) == [BATCH * NUM_PATCHES, union]


def test_with_fixed_shapes_they_are_finished_for_every_entry_of_the_blocks(tmp_path: Path) -> None:
    model, masks, images = model_and_masks(tmp_path, *SMALL_BLOCKS)
    entries = masks.target.indices.numel()
    assert entries < BATCH * NUM_PATCHES
    assert tokens_of_the_last_mlp(model, masks, images, pad) == [BATCH * NUM_PATCHES, entries]


def test_with_fixed_shapes_and_many_blocks_they_are_finished_for_every_patch(tmp_path: Path) -> None:
    model, masks, images = model_and_masks(tmp_path, "masker={name: multi_block, num_targets: 8}")
    assert masks.target.indices.numel() > BATCH * NUM_PATCHES
    assert tokens_of_the_last_mlp(model, masks, images, pad) == [BATCH * NUM_PATCHES] * 2


@pytest.mark.parametrize(
    "overrides",
    [
        ("target.normalization=batch_norm",),
        ("target.num_layers=2",),
        ("target=pooled_features",),
        ("hierarchy.num_levels=2",),
    ],
    ids=" ".join,
)
def test_what_reads_every_patch_gets_every_patch(tmp_path: Path, overrides: tuple[str, ...]) -> None:
    model, masks, images = model_and_masks(tmp_path, *SMALL_BLOCKS, *overrides)
    for packer in (pack_exactly, pad):
        assert set(tokens_of_the_last_mlp(model, masks, images, packer)) == {BATCH * NUM_PATCHES}


@pytest.mark.parametrize("normalization", ["layer_norm", "none"])
@pytest.mark.parametrize("masker", [MULTI_BLOCK, SMALL_BLOCKS, ("masker=multi_context",)], ids=" ".join)
@pytest.mark.parametrize("rows_of", [TargetRows.exact, TargetRows.of_fixed_size])
def test_the_targets_are_those_of_whole_images(
    tmp_path: Path, normalization: str, masker: tuple[str, ...], rows_of: Callable[[Patches, int], TargetRows]
) -> None:
    model, masks, images = model_and_masks(tmp_path, *masker, f"target.normalization={normalization}")
    rows = rows_of(masks.target, NUM_PATCHES)
    found = model.target.compute_rows(model.target_encoder, images, masks, rows)
    expected = model.target.compute(model.target_encoder, images, masks)
    valid = masks.target.validity()
    assert found.shape == expected.shape
    assert float((found - expected)[valid].abs().max()) <= 1e-13
    assert found.isfinite().all()


def test_a_batch_without_any_target_is_no_error(tmp_path: Path) -> None:
    model, masks, images = model_and_masks(tmp_path, *SMALL_BLOCKS)
    nothing = Patches(torch.zeros(BATCH, 1, 2, dtype=torch.int64), torch.zeros(BATCH, 1, 2, dtype=torch.bool))
    rows = TargetRows.exact(nothing, NUM_PATCHES)
    found = model.target.compute_rows(model.target_encoder, images, Masks(masks.context, nothing), rows)
    assert found.shape[:3] == (BATCH, 1, 2)


def test_a_target_made_of_features_in_another_way_is_asked_for_its_own(tmp_path: Path) -> None:
    class Doubled(FeaturesTarget):
        def of_features(self, features: Tensor, masks: Masks) -> Tensor:
            return 2 * super().of_features(features, masks)

    model, masks, images = model_and_masks(tmp_path, *SMALL_BLOCKS)
    valid, before = masks.target.validity(), model(images, masks).targets
    model.target = Doubled(model.target.params, model.target.inputs)
    assert torch.allclose(model(images, masks).targets[valid], 2 * before[valid])
