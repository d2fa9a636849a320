"""Counts and frequencies of masks."""

from __future__ import annotations

import pytest
import torch

from jepa_lab.grid import Grid
from jepa_lab.maskers.base import Masker, MaskerParams, Masks
from jepa_lab.maskers.multi_block import MultiBlock
from jepa_lab.maskers.patches import Patches
from jepa_lab.maskers.statistics import PatchCounts, mask_statistics


class TwoImages(Masker):
    """Masks of two images, by hand, on a grid of 2 x 3."""

    num_context_views = 1
    num_target_blocks = 2

    def sample(self, batch_size: int, generator: torch.Generator) -> Masks:
        assert batch_size == 2
        return Masks(
            context=Patches(
                torch.tensor([[[0, 1, 3]], [[0, 0, 0]]]),
                torch.tensor([[[True, True, True]], [[True, False, False]]]),
            ),
            target=Patches(
                torch.tensor([[[2, 0], [2, 4]], [[1, 4], [4, 0]]]),
                torch.tensor([[[True, False], [True, True]], [[True, True], [True, False]]]),
            ),
        )


def test_counts_and_frequencies_of_masks_by_hand() -> None:
    masker = TwoImages(MaskerParams(), Grid(2, 3))
    found = mask_statistics(masker, "pad", batch_size=2, num_batches=3, seed=0)
    assert found.num_images == 6
    assert found.drawn_context == found.context == PatchCounts(2.0, 1, 3)
    assert found.target == PatchCounts(1.5, 1, 2)
    assert found.target_union_mean == 2.0
    assert found.never_used == pytest.approx(1 / 6)
    assert found.context_frequency.tolist() == [[1.0, 0.5, 0.0], [0.5, 0.0, 0.0]]
    assert found.target_frequency.tolist() == [[0.0, 0.5, 0.5], [0.0, 1.0, 0.0]]


def test_frequencies_are_those_of_what_the_encoder_sees() -> None:
    masker = TwoImages(MaskerParams(), Grid(2, 3))
    found = mask_statistics(masker, "prefix", batch_size=2, num_batches=2, seed=0)
    assert found.drawn_context == PatchCounts(2.0, 1, 3)
    assert found.context == PatchCounts(1.0, 1, 1)
    assert found.context_frequency.tolist() == [[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]


def test_prefix_loses_the_bottom_of_the_image_and_subset_does_not() -> None:
    masker = MultiBlock(MultiBlock.Params(), Grid(8, 8))
    halves = {}
    for batching in ("pad", "subset", "prefix"):
        found = mask_statistics(masker, batching, batch_size=128, num_batches=10, seed=0)  # type: ignore[arg-type]
        halves[batching] = (found.context_frequency[4:].sum() / found.context_frequency.sum()).item()
        assert found.context_frequency.sum().item() == pytest.approx(found.context.mean, rel=1e-4)
    assert halves["pad"] == pytest.approx(0.5, abs=0.05)
    assert halves["subset"] == pytest.approx(0.5, abs=0.05)
    assert halves["prefix"] < 0.2


def test_the_seed_decides_the_statistics() -> None:
    masker = MultiBlock(MultiBlock.Params(), Grid(8, 8))
    first, again, other = (mask_statistics(masker, "subset", 16, 2, seed) for seed in (0, 0, 1))
    assert torch.equal(first.context_frequency, again.context_frequency)
    assert first.drawn_context == again.drawn_context
    assert not torch.equal(first.context_frequency, other.context_frequency)
