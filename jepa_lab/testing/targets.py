"""What every target keeps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from jepa_lab.grid import Grid
from jepa_lab.maskers.base import Masks
from jepa_lab.maskers.patches import Patches
from jepa_lab.models.vit import VisionTransformer
from jepa_lab.registry import ComponentParams, Entry
from jepa_lab.targets.base import PatchTarget, Target, TargetInputs
from jepa_lab.testing.encoders import tiny_encoder
from jepa_lab.testing.randomness import seeded
from jepa_lab.testing.steps import InTheStep

INPUTS = TargetInputs(embed_dim=12, depth=2, patch_size=2, num_channels=3)


class TargetContract(InTheStep):
    """Tests of a `Target`; it must take encoders of width 12 with patches of 2 px."""

    overrides = ("target={}",)
    fitting = TargetInputs(embed_dim=48, depth=4, patch_size=4, num_channels=3)
    breaking: ClassVar[Sequence[Any]] = (TargetInputs(embed_dim=2, depth=1, patch_size=1, num_channels=1),)

    @pytest.fixture
    def encoder(self) -> VisionTransformer:
        """A target encoder on a grid of 3x3 patches."""
        return tiny_encoder(Grid(3, 3), patch_size=2)

    @pytest.fixture
    def images(self) -> Tensor:
        """[2, 3, 6, 6], normalised."""
        return torch.rand(2, 3, 6, 6, generator=seeded())

    @pytest.fixture
    def target(self, entry: Entry[Target], params: ComponentParams, images: Tensor) -> Target:
        """The target, which has seen the training images."""
        assert entry.component.check(params, INPUTS) is None
        target = entry.component(params, INPUTS)
        target.fit(lambda count: iter([images[:count]]))
        return target

    def test_targets_have_no_gradient_and_the_shape_of_the_masks(
        self, target: Target, encoder: VisionTransformer, images: Tensor
    ) -> None:
        context = Patches(torch.zeros(2, 1, 1, dtype=torch.int64))
        masks = Masks(context, Patches(torch.tensor([[[1, 2], [3, 8]]]).expand(2, 2, 2)))
        out = target.compute(encoder, images, masks)
        assert out.shape == (2, 2, 2, target.num_features)
        assert not out.requires_grad
        assert torch.isfinite(out).all()
        count, length = target.encoder_sequences(9, 2, 2)
        assert (count == 0) == isinstance(target, PatchTarget)
        assert count * length <= 9

    def test_padded_target_patches_change_no_valid_target(
        self, target: Target, encoder: VisionTransformer, images: Tensor
    ) -> None:
        context = Patches(torch.zeros(2, 1, 1, dtype=torch.int64))
        short = torch.tensor([[[1, 2], [3, 8]]]).expand(2, 2, 2)
        long = torch.cat([short, torch.zeros(2, 2, 1, dtype=torch.int64)], dim=2)
        valid = torch.tensor([True, True, False]).expand(2, 2, 3)
        gathered = target.compute(encoder, images, Masks(context, Patches(short)))
        padded = target.compute(encoder, images, Masks(context, Patches(long, valid)))
        assert torch.allclose(padded[:, :, :2], gathered, atol=1e-5)
