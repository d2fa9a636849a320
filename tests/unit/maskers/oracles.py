"""Independent maskers: one image at a time, with Python loops and sets, straight from the descriptions."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable

Range = tuple[float, float]
Patches = set[int]


def block_size(num_patches: int, scale: float, aspect_ratio: float) -> tuple[int, int]:
    keep = int(num_patches * scale)
    return round(math.sqrt(keep * aspect_ratio)), round(math.sqrt(keep / aspect_ratio))


def any_block_size(
    num_patches: int, scale: float, aspect_ratio: float, aspect_ratio_is: str, block_rounding: str
) -> tuple[int, int]:
    """Height and width before they are made to fit, in every way that there is."""
    height_follows = aspect_ratio_is == "height_over_width"
    if block_rounding == "each_side":
        height, width = block_size(num_patches, scale, aspect_ratio)
        return (height, width) if height_follows else (width, height)
    area = num_patches * scale if block_rounding == "one_from_other_exact_area" else int(num_patches * scale)
    first = round(math.sqrt(area / aspect_ratio))
    second = round(first * aspect_ratio)
    return (second, first) if height_follows else (first, second)


def block(top: int, left: int, height: int, width: int, grid_width: int) -> Patches:
    return {row * grid_width + column for row in range(top, top + height) for column in range(left, left + width)}


def paper_image(
    rng: random.Random,
    shape: tuple[int, int],
    target_scale: Range,
    context_scale: Range,
    num_targets: int,
    min_context: int,
    size_per_block: bool,
    aspect_ratio: Range = (0.75, 1.5),
    num_hidden: int = 0,
    hidden_scale: Range = (0.15, 0.2),
) -> tuple[Patches, list[Patches]]:
    """Context and targets of one image of the paper's masker, by rejection; hidden blocks are neither."""
    gh, gw = shape

    def draw_size(scale: Range, aspects: Range) -> tuple[int, int]:
        height, width = block_size(gh * gw, rng.uniform(*scale), rng.uniform(*aspects))
        return max(1, min(height, gh)), max(1, min(width, gw))

    def place(height: int, width: int) -> Patches:
        return block(rng.randint(0, gh - height), rng.randint(0, gw - width), height, width, gw)

    def blocks(count: int, scale: Range) -> list[Patches]:
        shared = draw_size(scale, aspect_ratio)
        return [place(*(draw_size(scale, aspect_ratio) if size_per_block else shared)) for _ in range(count)]

    while True:
        targets, hidden = blocks(num_targets, target_scale), blocks(num_hidden, hidden_scale)
        context = place(*draw_size(context_scale, (1.0, 1.0))).difference(*targets, *hidden)
        if len(context) >= min_context:
            return context, targets


def released_context(
    rng: random.Random,
    shape: tuple[int, int],
    size: tuple[int, int],
    targets: Iterable[Patches],
    min_keep: int,
) -> Patches:
    """One context of the released masker: after each 20 failures one target fewer is respected."""
    gh, gw = shape
    respected = list(targets)
    while True:
        for _ in range(20):
            top, left = rng.randrange(gh - size[0]), rng.randrange(gw - size[1])
            kept = block(top, left, *size, gw).difference(*respected)
            if len(kept) > min_keep:
                return kept
        respected.pop()


def multi_context_image(
    rng: random.Random,
    shape: tuple[int, int],
    num_context_blocks: int,
    context_scale: Range,
    context_aspect_ratio: Range,
    num_targets: int,
    target_scale: Range,
    target_aspect_ratio: Range,
    min_context_patches: int,
    aspect_ratio_is: str,
    block_rounding: str,
) -> tuple[Patches, list[Patches]]:
    """Context and targets of one image: blocks united, then targets at listed places outside them, or all again."""
    gh, gw = shape

    def draw_size(scale: Range, aspects: Range) -> tuple[int, int]:
        drawn = rng.uniform(*scale), rng.uniform(*aspects)
        height, width = any_block_size(gh * gw, *drawn, aspect_ratio_is, block_rounding)
        return max(1, min(height, gh)), max(1, min(width, gw))

    while True:
        context: Patches = set()
        for _ in range(num_context_blocks):
            height, width = draw_size(context_scale, context_aspect_ratio)
            context |= block(rng.randint(0, gh - height), rng.randint(0, gw - width), height, width, gw)
        targets = []
        for _ in range(num_targets):
            height, width = draw_size(target_scale, target_aspect_ratio)
            places = [
                block(t, left, height, width, gw) for t in range(gh - height + 1) for left in range(gw - width + 1)
            ]
            free = [place for place in places if not place & context]
            if free:
                targets.append(rng.choice(free))
        if len(targets) == num_targets and len(context) >= min_context_patches:
            return context, targets
