"""Masks that are drawn a step ahead are those that would be drawn in time, also after a restart."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from jepa_lab.build import build_mask_source, build_model
from jepa_lab.maskers.base import Masks
from jepa_lab.maskers.patches import Patches
from jepa_lab.models.packing import PackedSizes
from jepa_lab.training.devices import Compute
from jepa_lab.training.mask_source import DrawnAhead, DrawnNow, MaskSource
from jepa_lab.training.team import Alone, Place, Team
from tests.integration.pipelines import load_tiny

CPU = torch.device("cpu")


def source(folder: Path, *overrides: str, ahead: bool, team: Team | None = None) -> MaskSource:
    pipeline = load_tiny(folder, "data.image_size=16", *overrides).pipeline
    compute = Compute(CPU, "fp32", compile=not ahead, capture=ahead)  # both have masks of fixed shapes
    return build_mask_source(pipeline, build_model(pipeline, 1), compute, team or Alone())


def copies(masks: MaskSource, count: int) -> list[list[Tensor]]:
    return [masks.next().masks.buffer().tensors() for _ in range(count)]


def same(first: list[list[Tensor]], second: list[list[Tensor]]) -> bool:
    return all(
        torch.equal(one, other)
        for mine, its in zip(first, second, strict=True)
        for one, other in zip(mine, its, strict=True)
    )


@pytest.mark.parametrize("overrides", [("masker=random",), ("masker=multi_block", "context_batching=subset")])
def test_a_seed_draws_the_same_masks_ahead_and_in_time(tmp_path: Path, overrides: tuple[str, ...]) -> None:
    ahead, now = (source(tmp_path, *overrides, ahead=choice) for choice in (True, False))
    assert isinstance(ahead, DrawnAhead)
    assert isinstance(now, DrawnNow)
    found = copies(ahead, 6)
    assert same(found, copies(now, 6))
    assert not same(found[:1], found[1:2])


@pytest.mark.parametrize("taken", [0, 1, 4])
def test_from_a_saved_state_the_masks_follow_that_would_have_followed(tmp_path: Path, taken: int) -> None:
    first, second = (source(tmp_path, "masker=random", ahead=True) for _ in range(2))
    copies(first, taken)
    state = first.state().clone()
    copies(second, 2)  # whatever it has drawn, and drawn ahead, before
    second.restore(state)
    assert same(copies(first, 3), copies(second, 3))


def test_masks_stay_in_the_same_memory_and_fit_the_buffers_that_are_chosen_for_them(tmp_path: Path) -> None:
    masks = source(tmp_path, "masker=multi_block", "context_batching=prefix", ahead=True)
    assert isinstance(masks, DrawnAhead)
    places, shapes = set(), set()
    for _ in range(20):
        drawn = masks.next()
        places.add(tuple(each.data_ptr() for each in drawn.masks.tensors()))
        shapes.add(drawn.shape)
        needed = [int(rows) for rows in PackedSizes.of(drawn.masks)]
        sizes = masks.ladder.rungs[drawn.shape][0]
        assert all(need <= size for need, size in zip(needed, (sizes.context, sizes.pairs, sizes.targets), strict=True))
        packing = drawn.packer(drawn.masks, 64)
        assert len(packing.context.images) == sizes.context
    assert len(places) == 1
    assert len(shapes) > 1


class Second(Alone):
    """The second of two processes."""

    def __init__(self) -> None:
        super().__init__()
        self.place = Place(rank=1, world_size=2)


def test_a_process_among_others_wants_buffers_for_its_own_rows_of_the_masks(tmp_path: Path) -> None:
    masks = source(tmp_path, "masker=multi_block", "training.batch_size=8", ahead=True, team=Second())
    assert isinstance(masks, DrawnAhead)
    drawn = masks.next()
    assert len(drawn.masks) == 8
    own = drawn.masks[slice(4, 8)]
    assert masks.needed(drawn.masks).tolist() == [int(rows) for rows in PackedSizes.of(own)]
    assert len(drawn.packer(own, 64).context.images) >= int(own.context.counts().sum())


def test_masks_with_and_without_padding_may_take_turns(tmp_path: Path) -> None:
    masks = source(tmp_path, "masker=random", ahead=True)
    assert isinstance(masks, DrawnAhead)
    draw, calls = masks.sample, []

    def now_and_then(generator: torch.Generator) -> Masks:
        calls.append(1)
        drawn = draw(generator)
        whole = Masks(Patches(drawn.context.indices), Patches(drawn.target.indices))
        return whole if len(calls) % 2 else drawn

    masks.sample = now_and_then
    assert {bool(masks.next().masks.context.validity().all()) for _ in range(4)} == {True, False}
