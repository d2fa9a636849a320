"""What every augmentation keeps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import pytest
import torch

from jepa_lab.data.augmentations.base import Augmentation
from jepa_lab.registry import ComponentParams, Entry
from jepa_lab.testing.randomness import global_generators, seeded
from jepa_lab.testing.steps import InTheStep


class AugmentationContract(InTheStep):
    """Tests of an `Augmentation`."""

    overrides = ("augmentation={}",)
    fitting = 32
    breaking: ClassVar[Sequence[Any]] = (1,)

    @pytest.mark.parametrize(("channels", "height", "width"), [(3, 16, 16), (3, 20, 28), (1, 8, 8)])
    @pytest.mark.parametrize(
        "sizes", [None, [[20, 28], [3, 2000], [2000, 1], [16, 16]]], ids=["as stored", "of pictures"]
    )
    def test_the_result_is_a_batch_of_images_of_the_asked_size(
        self,
        entry: Entry[Augmentation],
        params: ComponentParams,
        channels: int,
        height: int,
        width: int,
        sizes: list[list[int]] | None,
    ) -> None:
        images = torch.rand(32, channels, height, width, generator=seeded(1))
        images[0], images[1] = 0, 1
        original, augmentation = images.clone(), entry.component(params, 16)
        result = augmentation(images, None if sizes is None else torch.tensor(sizes * 8, dtype=torch.int32), seeded())
        assert result.shape == (32, channels, 16, 16)
        assert result.dtype == torch.float32
        assert result.min() >= 0
        assert result.max() <= 1 + 1e-6
        assert torch.equal(images, original)

    def test_the_generator_is_the_only_source_of_randomness(
        self, entry: Entry[Augmentation], params: ComponentParams
    ) -> None:
        images, augmentation = torch.rand(8, 3, 16, 16, generator=seeded(1)), entry.component(params, 16)
        before = global_generators()
        first = augmentation(images, None, seeded())
        assert torch.equal(augmentation(images, None, seeded()), first)
        assert global_generators() == before

    @pytest.mark.parametrize("size", [16, 20])
    def test_a_part_of_a_batch_with_its_rows_of_the_draws_is_changed_as_in_the_whole(
        self, entry: Entry[Augmentation], params: ComponentParams, size: int
    ) -> None:
        images, augmentation = torch.rand(12, 3, 20, 20, generator=seeded(1)), entry.component(params, size)
        sizes = torch.tensor([[20, 20], [300, 17], [64, 96]], dtype=torch.int32).repeat(4, 1)
        draws = augmentation.draw(12, seeded())
        whole = augmentation.apply(images, sizes, draws)
        assert torch.equal(whole, augmentation(images, sizes, seeded()))
        assert all(len(draw) == 12 for draw in draws)
        for rows in (slice(0, 6), slice(6, 12), slice(3, 4)):
            part = augmentation.apply(images[rows], sizes[rows], tuple(draw[rows] for draw in draws))
            torch.testing.assert_close(part, whole[rows], rtol=0, atol=1e-6)

    def test_images_of_a_batch_are_changed_each_by_its_own_draw(
        self, entry: Entry[Augmentation], params: ComponentParams
    ) -> None:
        images = torch.rand(1, 3, 16, 16, generator=seeded(1)).expand(64, -1, -1, -1)
        augmentation = entry.component(params, 16)
        first, second = augmentation(images, None, seeded(0)), augmentation(images, None, seeded(1))
        is_random = not torch.equal(first, second)
        num_different = len(first.flatten(1).unique(dim=0))
        assert num_different > 48 if is_random else num_different == 1
