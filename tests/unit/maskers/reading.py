"""Read masks back as Python sets and boolean grids."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

import pytest
import torch
from torch import Tensor

from jepa_lab.grid import Grid
from jepa_lab.maskers.base import Masks
from jepa_lab.maskers.patches import Patches, patches_of


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def in_order(patches: Patches) -> list[list[list[int]]]:
    """For every image and view (or block) its valid patches, in their order."""
    each_image = zip(patches.indices, patches.validity(), strict=True)
    return [[row[ok].tolist() for row, ok in zip(*image, strict=True)] for image in each_image]


def as_sets(patches: Patches) -> list[list[set[int]]]:
    """For every image and view (or block) the set of its valid patches."""
    return [[set(row) for row in image] for image in in_order(patches)]


def contexts_of(masks: Masks) -> list[list[set[int]]]:
    return as_sets(masks.context)


def targets_of(masks: Masks) -> list[list[set[int]]]:
    return as_sets(masks.target)


def box(patches: set[int], grid: Grid) -> tuple[int, int, int, int]:
    """Top, left, height and width of the smallest rectangle around patches."""
    rows = [patch // grid.width for patch in patches]
    columns = [patch % grid.width for patch in patches]
    return min(rows), min(columns), max(rows) - min(rows) + 1, max(columns) - min(columns) + 1


def sizes_of(masks: Masks, grid: Grid) -> list[list[tuple[int, int]]]:
    """Height and width of every target block; each must be a full rectangle."""
    sizes = []
    for image in targets_of(masks):
        boxes = [box(patches, grid) for patches in image]
        assert all(len(patches) == b[2] * b[3] for patches, b in zip(image, boxes, strict=True))
        sizes.append([(b[2], b[3]) for b in boxes])
    return sizes


@contextmanager
def record_largest_counts(monkeypatch: pytest.MonkeyPatch, module: ModuleType) -> Iterator[list[int]]:
    """Record the most patches that a masker's module has asked indices for: of contexts, then of targets.

    The indices themselves would not show it: they are cut off at the declared maximum.
    """
    largest = [0, 0]
    calls = 0

    def recording(coverage: Tensor, length: int, *, padded: bool = True) -> Patches:
        nonlocal calls
        largest[calls % 2] = max(largest[calls % 2], int(coverage.sum(dim=-1).max()))
        calls += 1
        return patches_of(coverage, length, padded=padded)

    with monkeypatch.context() as patch:
        patch.setattr(module, "patches_of", recording)
        yield largest
