"""Sizes of buffers for batches whose number of tokens is random: they hold every batch, and most of them closely."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from jepa_lab.build import build_model, build_sampler
from jepa_lab.config.loading import load_pipeline
from jepa_lab.config.pipeline import Pipeline
from jepa_lab.maskers.base import Masks
from jepa_lab.maskers.patches import Patches
from jepa_lab.models.ladder import Ladder, Levels, build_ladder, needed_rows
from jepa_lab.models.packing import PackedSizes
from tests.integration.pipelines import load_tiny
from tests.packers import pack_exactly

PIPELINES = sorted((Path(__file__).parents[3] / "pipelines").glob("*.yaml"))


def parts_of(pipeline: Pipeline, parts: int = 1) -> list[slice]:
    size = pipeline.training.batch_size // parts
    return [slice(start, start + size) for start in range(0, parts * size, size)]


def levels_of(pipeline: Pipeline) -> Levels:
    with torch.device("meta"):
        return build_model(pipeline, 3).hierarchy.masks


def draw(pipeline: Pipeline, generator: torch.Generator) -> Masks:
    return build_sampler(pipeline).sample(pipeline.training.batch_size, generator, fixed_shapes=True)


def ladder_of(pipeline: Pipeline, parts: int = 1) -> Ladder:
    return build_ladder(lambda own: draw(pipeline, own), levels_of(pipeline), parts_of(pipeline, parts))


def rows(sizes: tuple[PackedSizes, ...]) -> torch.Tensor:
    return torch.tensor([[each.context, each.pairs, each.targets] for each in sizes]).flatten()


@pytest.mark.parametrize("file", PIPELINES, ids=lambda file: file.stem)
def test_fresh_batches_of_a_shipped_pipeline_fit_closely(file: Path) -> None:
    pipeline = load_pipeline(file, ["data.root=unused", "training.batch_size=128"]).pipeline
    ladder, levels, parts = ladder_of(pipeline), levels_of(pipeline), parts_of(pipeline)
    generator, surplus = torch.Generator().manual_seed(1), []
    for _ in range(8):
        needed = needed_rows(draw(pipeline, generator), levels, parts)
        surplus.append(rows(ladder.rungs[ladder.rung(needed.tolist())])[:3] / needed[:3])
    assert torch.stack(surplus).min() >= 1
    context, pairs, _ = torch.stack(surplus).mean(dim=0)
    assert max(context, pairs) < (1.2 if pipeline.context_batching == "prefix" else 1.15)


@pytest.mark.parametrize("batching", ["pad", "subset", "prefix"])
@pytest.mark.parametrize("masker", ["multi_block", "random", "multi_context", "reference_multi_block"])
def test_the_sizes_ascend_and_the_last_holds_masks_without_any_padding(
    tmp_path: Path, masker: str, batching: str
) -> None:
    overrides = (f"masker={masker}", f"context_batching={batching}", "hierarchy.num_levels=2", "data.image_size=16")
    pipeline = load_tiny(tmp_path, *overrides).pipeline
    ladder, levels, parts = ladder_of(pipeline, parts=2), levels_of(pipeline), parts_of(pipeline, parts=2)
    sizes = torch.stack([rows(each) for each in ladder.rungs])
    assert (sizes.diff(dim=0) >= 0).all()
    masks = draw(pipeline, torch.Generator().manual_seed(2))
    for part in parts:
        exact = [pack_exactly(level, 64) for level in levels(masks[part])]
        context = [len(each.context.images) for each in exact]
        pairs = [each.pairs.patches.shape[1] for each in exact]
        targets = [each.pairs.target_patches.shape[1] for each in exact]
        counted = [rows for level in zip(context, pairs, targets, strict=True) for rows in level]
        assert needed_rows(masks, levels, [part]).tolist() == counted
    unpadded = [Masks(Patches(level.context.indices), Patches(level.target.indices)) for level in levels(masks[part])]
    most = torch.cat([needed_rows(each, lambda own: [own], [slice(None)]) for each in unpadded])
    assert ladder.rung(most.tolist()) == len(ladder.rungs) - 1


def test_the_lowest_rung_that_holds_all_buffers_is_taken() -> None:
    ladder = Ladder(tuple((PackedSizes(*(10 * step for _ in range(3))),) for step in (1, 2, 3)))
    assert [ladder.rung(needed) for needed in ([1, 1, 10], [1, 11, 1], [20, 20, 20], [1, 1, 30])] == [0, 1, 1, 2]
    with pytest.raises(AssertionError, match="holds any masks"):
        ladder.rung([1, 1, 31])


def test_a_level_without_a_target_in_the_sample_still_has_buffers() -> None:
    all_valid = torch.ones(4, 1, 8, dtype=torch.bool)
    indices = torch.arange(8).expand(4, 1, 8)
    masks = Masks(Patches(indices, all_valid), Patches(indices, ~all_valid))
    ladder = build_ladder(lambda generator: masks, lambda own: [own], [slice(None)])
    assert min(int(rows(sizes).min()) for sizes in ladder.rungs) >= 1


def test_buffers_are_wanted_for_the_largest_of_the_parts_that_are_computed_one_after_the_other() -> None:
    valid = torch.arange(8) < torch.tensor([2, 2, 7, 7])[:, None, None]
    patches = Patches(torch.arange(8).expand(4, 1, 8), valid)
    masks, parts = Masks(patches, patches), [slice(0, 2), slice(2, 4)]
    found = [needed_rows(masks, lambda own: [own], order).tolist() for order in (parts, parts[::-1])]
    assert found == [[14, 28, 14]] * 2
