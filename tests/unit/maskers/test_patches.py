"""Padded indices with validity: counted, cut into images, and read as coverage."""

from __future__ import annotations

import torch

from jepa_lab.maskers.base import Masks
from jepa_lab.maskers.patches import Patches, mean_of_valid, patches_of
from tests.unit.maskers.reading import seeded

PADDED = Patches(
    torch.tensor([[[1, 4, 5], [2, 0, 0]], [[0, 3, 0], [0, 0, 0]]]),
    torch.tensor([[[True, True, True], [True, False, False]], [[True, True, False], [False, False, False]]]),
)


def test_padding_is_not_counted_and_covers_nothing() -> None:
    assert PADDED.counts().tolist() == [[3, 1], [2, 0]]
    covered = [[row.nonzero().flatten().tolist() for row in image] for image in PADDED.coverage(6)]
    assert covered == [[[1, 4, 5], [2]], [[0, 3], []]]
    assert PADDED.padded_with(6).tolist() == [[[1, 4, 5], [2, 6, 6]], [[0, 3, 6], [6, 6, 6]]]


def test_indices_alone_are_all_valid() -> None:
    patches = Patches(PADDED.indices)
    assert patches.valid is None
    assert patches.validity().all()
    assert patches.counts().tolist() == [[3, 3], [3, 3]]
    assert patches.counts().dtype == PADDED.counts().dtype == torch.int64
    assert patches.coverage(6)[0, 1].nonzero().flatten().tolist() == [0, 2]
    assert patches.padded_with(6) is patches.indices


def test_validity_goes_wherever_the_indices_go() -> None:
    assert len(PADDED) == 2
    for part, indices, valid in (
        (PADDED[1:], PADDED.indices[1:], PADDED.validity()[1:]),
        (PADDED.first(2), PADDED.indices[:, :, :2], PADDED.validity()[:, :, :2]),
        (PADDED.sequences(), PADDED.indices.reshape(4, 3), PADDED.validity().reshape(4, 3)),
    ):
        assert torch.equal(part.indices, indices)
        assert torch.equal(part.validity(), valid)
    moved = PADDED.to(torch.device("meta"))
    assert moved.device == moved.validity().device == torch.device("meta")


def test_masks_are_cut_and_moved_on_both_sides() -> None:
    masks = Masks(PADDED, Patches(PADDED.indices[:, :1]))
    assert len(masks) == 2
    last = masks[1:]
    assert len(last) == len(last.context) == len(last.target) == 1
    assert last.context.counts().tolist() == [[2, 0]]
    moved = masks.to(torch.device("meta"))
    assert moved.context.device == moved.target.device == torch.device("meta")
    assert moved.target.valid is None


def test_patches_that_are_promised_to_fill_every_row_need_no_validity() -> None:
    order = torch.rand(4, 2, 12, generator=seeded(0)).argsort(dim=-1)
    coverage = order < 5
    padded, full = patches_of(coverage, 5), patches_of(coverage, 5, padded=False)
    assert full.valid is None
    assert padded.validity().all()
    assert torch.equal(full.indices, padded.indices)


def test_averages_are_those_of_the_valid_tokens_and_0_of_none() -> None:
    tokens = torch.randn(2, 2, 3, 4, generator=seeded(0), dtype=torch.float64)
    means = mean_of_valid(tokens, PADDED.valid)
    assert torch.allclose(means[1, 0], tokens[1, 0, :2].mean(dim=0))
    assert means[1, 1].eq(0).all()
    assert torch.allclose(mean_of_valid(tokens, None), tokens.mean(dim=2))
