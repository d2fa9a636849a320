"""Which heights and widths of blocks occur: exact distributions, for scale and aspect ratio drawn uniformly.

A scale (area as a share of the grid) and an aspect ratio become a size as in the paper's released code:
keep = int(N * scale), height = round(sqrt(keep * aspect)), width = round(sqrt(keep / aspect)), where the aspect ratio
is height / width. In `chained_block_sizes` the height follows from the rounded width.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from itertools import pairwise

from jepa_lab.grid import Grid
from jepa_lab.maskers.discrete import Discrete, floor_probabilities

Range = tuple[float, float]
Size = tuple[int, ...]
"""Height and width of a block, in patches: an outcome of a `Discrete`."""


def block_sizes(num_patches: int, scale: Range, aspect_ratio: Range, limit: Grid) -> Discrete:
    """The exact distribution of (height, width) for independent uniform draws of scale and aspect ratio.

    Args:
        num_patches: N of the grid that `scale` refers to.
        aspect_ratio: height / width.
        limit: no block is higher or wider than this; every block has at least one patch.
    """
    keeps = floor_probabilities(num_patches * scale[0], num_patches * scale[1])
    pieces = ((keep, share, aspect_ratio) for keep, share in keeps.items())
    return _distribution(pieces, Grid(1, 1), limit)


def transposed(sizes: Discrete) -> Discrete:
    """The distribution of blocks that are turned by 90 degrees."""
    return Discrete({(width, height): p for (height, width), p in sizes.probabilities.items()})


def block_sizes_from_one_draw(num_patches: int, scale: Range, aspect_ratio: Range, limit: Grid) -> Discrete:
    """The same as `block_sizes` where one uniform number sets both scale and aspect ratio (the released code).

    A block may come out empty here: nothing keeps it at one patch.
    """
    low, high = num_patches * scale[0], num_patches * scale[1]

    def aspect_at(area: float) -> float:
        position = (area - low) / (high - low)
        return aspect_ratio[0] + position * (aspect_ratio[1] - aspect_ratio[0])

    keeps = floor_probabilities(low, high)
    if low == high:  # the area says nothing about the number that was drawn
        return _distribution([(keep, 1.0, aspect_ratio) for keep in keeps], Grid(0, 0), limit)
    pieces = (
        (keep, share, (aspect_at(max(low, keep)), aspect_at(min(high, keep + 1)))) for keep, share in keeps.items()
    )
    return _distribution(pieces, Grid(0, 0), limit)


def _distribution(pieces: Iterable[tuple[int, float, Range]], smallest: Grid, largest: Grid) -> Discrete:
    """Sum over pieces (keep, probability, range of aspect ratios), with sizes clipped to the two bounds."""
    furthest = max(largest.height, largest.width)
    shapes = (
        (size, probability * share)
        for keep, probability, aspect_ratio in pieces
        for size, share in _shapes(keep, aspect_ratio, furthest)
    )
    return _clipped(shapes, smallest, largest)


def _clipped(shapes: Iterable[tuple[Size, float]], smallest: Grid, largest: Grid) -> Discrete:
    """The distribution of sizes, each with its probability, that are clipped to the two bounds."""
    total: dict[tuple[int, ...], float] = {}
    for (height, width), probability in shapes:
        size = (
            max(smallest.height, min(height, largest.height)),
            max(smallest.width, min(width, largest.width)),
        )
        total[size] = total.get(size, 0.0) + probability
    return Discrete(total)


def _shapes(keep: int, aspect_ratio: Range, limit: int) -> Iterator[tuple[Size, float]]:
    """The roundings that occur for `keep` patches, each with its share of the range of aspect ratios.

    Sizes above `limit` are not told apart: the caller clips them.
    """
    low, high = aspect_ratio
    if keep == 0 or low == high:
        yield _rounded(keep, low), 1.0
        return
    halves = [(k + 0.5) ** 2 for k in range(limit)]
    # The aspect ratios at which height or width changes.
    turns = {half / keep for half in halves} | {keep / half for half in halves}
    edges = [low, *sorted(turn for turn in turns if low < turn < high), high]
    for start, end in pairwise(edges):
        yield _rounded(keep, (start + end) / 2), (end - start) / (high - low)


def _rounded(keep: int, aspect_ratio: float) -> Size:
    return round(math.sqrt(keep * aspect_ratio)), round(math.sqrt(keep / aspect_ratio))


def chained_block_sizes(
    num_patches: int, scale: Range, aspect_ratio: Range, limit: Grid, *, whole_patches: bool
) -> Discrete:
    """The exact distribution where the width is rounded first, and the height follows from it.

    width = round(sqrt(area / aspect)), height = round(width * aspect), for independent uniform draws of scale and
    aspect ratio.

    Args:
        num_patches, aspect_ratio, limit: as for `block_sizes`.
        whole_patches: whether the area is int(N * scale), or N * scale as it is.
    """
    low, high = num_patches * scale[0], num_patches * scale[1]
    areas: Iterable[tuple[Range, float]] = [((low, high), 1.0)]
    if whole_patches:
        areas = (((keep, keep), share) for keep, share in floor_probabilities(low, high).items())
    shapes = (
        (size, probability * share)
        for area, probability in areas
        for size, share in _chained_shapes(area, aspect_ratio, limit.width)
    )
    return _clipped(shapes, Grid(1, 1), limit)


def _chained_shapes(area: Range, aspect_ratio: Range, limit: int) -> Iterator[tuple[Size, float]]:
    """The roundings that occur for areas and aspect ratios in these ranges, each with its probability.

    Args:
        limit: above it widths need not be told apart; the caller clips them.
    """
    low, high = aspect_ratio
    widest = max(limit, math.ceil(2 * area[1]))  # of a wider block the height rounds to 0
    first, last = round(math.sqrt(area[0] / high)), round(math.sqrt(area[1] / low))
    for width in range(first, min(last, widest) + 1):
        # A block is this wide where its area lies between these two numbers times its aspect ratio.
        least, most = max(width - 0.5, 0.0) ** 2, (width + 0.5) ** 2
        start, end = max(low, area[0] / most), min(high, area[1] / least) if least else high
        if start > end:
            continue
        heights = range(round(width * start), round(width * end) + 1)
        turns = [(height + 0.5) / width for height in heights[:-1]] if width else []
        for height, (begin, stop) in zip(heights, pairwise([start, *turns, end]), strict=True):
            share = 1.0 if low == high else (stop - begin) / (high - low)
            inside = _mean_below(most, (begin, stop), area) - _mean_below(least, (begin, stop), area)
            yield (height, width), share * inside
    if last > widest:
        yield (0, widest + 1), 1 - _mean_below((widest + 0.5) ** 2, aspect_ratio, area)


def _mean_below(factor: float, aspect_ratio: Range, area: Range) -> float:
    """Probability that area < factor * aspect, for both uniform in their ranges, which may be single numbers."""
    if factor == 0:
        return 0.0
    (start, end), (low, high) = aspect_ratio, area
    if start == end:
        below = factor * start
        return float(below > low) if low == high else (min(max(below, low), high) - low) / (high - low)
    # Up to `none` no area is below, from `every` on each one is; between the two the share rises linearly.
    none, every = (min(max(bound / factor, start), end) for bound in area)
    rising = 0.0 if low == high else (factor * (none + every) / 2 - low) / (high - low) * (every - none)
    return (rising + end - every) / (end - start)
