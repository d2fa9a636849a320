"""Coverage of 95% intervals over seeds and images, simulated; how the interval of `reports.crossed` was chosen.

    python -m benchmarks.coverage [--tables 2000] [--images 287,1000] [--seeds 3,5] [--effect 0.5] [--shares 0.1]

The population: an image is right with a probability whose logit is the sum of a mean, of how easy the image is, of the
arm, of what the arm does to this very image (the interaction), and of what the run does to all images. A run is an arm
with a seed, and two arms share nothing of a seed but its number. An interval is right where it holds the difference
between the arms in the population: over all images and all seeds. The last lines are of seeds that have a validation
split each (`split_seeds`), drawn from the same images.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import click
import numpy as np
from scipy import stats

from benchmarks.timing import markdown_table
from jepa_lab.reports.crossed import CrossedEstimate, crossed_estimate

INTERACTIONS = (0.0, 1.0, 2.0)
SEED_SPREADS = (0.0, 0.1)
_RESAMPLES = 200
_POPULATION = 4_000_000
_Z = 1.959963984540054


@dataclass(frozen=True)
class World:
    """A population of images and seeds; numbers are logits of being right.

    Attributes:
        interaction: standard deviation of what an arm does to single images.
        of_seed: standard deviation of what a run does to all images.
        effect: of every arm but the first; a true null is 0.
        mean, of_image: mean and standard deviation of how easy images are.
    """

    num_seeds: int
    num_images: int
    interaction: float
    of_seed: float = 0.1
    effect: float = 0.0
    mean: float = 2.0
    of_image: float = 2.5

    def arms(self, random: np.random.Generator, number: int = 2) -> np.ndarray:
        """Whether each image is right, [A, S, n] bool, in a table drawn from the population."""
        image = self.mean + self.of_image * random.standard_normal(self.num_images)
        found = np.empty((number, self.num_seeds, self.num_images), bool)
        for arm in range(number):
            own = image + self.effect * (arm > 0) + self.interaction * random.standard_normal(self.num_images)
            logits = (own + self.of_seed * random.standard_normal((self.num_seeds, 1))).astype(np.float32)
            found[arm] = random.random(logits.shape, dtype=np.float32) * (1 + np.exp(-logits)) < 1
        return found

    def true_difference(self) -> float:
        """Of the accuracies in the population, an arm with the effect - the first."""
        random = np.random.default_rng(0)
        image = self.mean + self.of_image * random.standard_normal(_POPULATION)
        image += math.hypot(self.interaction, self.of_seed) * random.standard_normal(_POPULATION)
        accuracy = [float((1 / (1 + np.exp(-(image + effect)))).mean()) for effect in (0.0, self.effect)]
        return accuracy[1] - accuracy[0]


@dataclass(frozen=True)
class MeanSquares:
    """The analysis of variance of differences [S, n], one per seed and image."""

    num_seeds: int
    num_images: int
    mean: float
    of_seeds: float
    of_images: float
    rest: float

    @classmethod
    def of(cls, differences: np.ndarray) -> MeanSquares:
        num_seeds, num_images = differences.shape
        rows, columns, mean = differences.mean(axis=1), differences.mean(axis=0), float(differences.mean())
        of_seeds, of_images = num_images * rows.var(ddof=1), num_seeds * columns.var(ddof=1)
        total = (differences**2).sum() - differences.size * mean**2
        rest = total - (num_seeds - 1) * of_seeds - (num_images - 1) * of_images
        rest /= (num_seeds - 1) * (num_images - 1)
        return cls(num_seeds, num_images, mean, float(of_seeds), float(of_images), float(rest))


def over_seeds(found: MeanSquares) -> float:
    """Half width of Student's t over the seeds."""
    return _t(found.num_seeds - 1) * math.sqrt(found.of_seeds / (found.num_seeds * found.num_images))


def over_images(found: MeanSquares) -> float:
    """Half width over the images, of the seeds' mean differences."""
    return _t(found.num_images - 1) * math.sqrt(found.of_images / (found.num_seeds * found.num_images))


def analysis_of_variance(found: MeanSquares) -> float:
    """Half width by the unbiased estimate of the variance, MS_seeds + MS_images - MS_rest; 0 where it is negative."""
    parts = ((found.of_seeds, 1), (found.of_images, 1), (found.rest, -1))
    return _satterthwaite(found, parts)


def simple_sum(found: MeanSquares) -> float:
    """Half width by the sum of both variances, in which the rest counts twice."""
    return _satterthwaite(found, ((found.of_seeds, 1), (found.of_images, 1)))


def hybrid(found: MeanSquares) -> float:
    """Root of the sum of squares: t times the part of the seeds, normal quantile times that of the images."""
    cells = found.num_seeds * found.num_images
    return math.sqrt(over_seeds(found) ** 2 + _Z**2 * max(0.0, found.of_images - found.rest) / cells)


def wider(found: MeanSquares) -> float:
    """The wider of the analysis of variance's and Student's over the seeds: `reports.crossed`."""
    return max(over_seeds(found), analysis_of_variance(found))


METHODS: dict[str, Callable[[MeanSquares], float]] = {
    "t over seeds": over_seeds,
    "t over images": over_images,
    "ANOVA": analysis_of_variance,
    "simple sum": simple_sum,
    "hybrid t": hybrid,
    "wider of t over seeds and ANOVA (chosen)": wider,
}


class Pigeonholes:
    """The two-way bootstrap of seeds and images (Owen 2007), with percentiles."""

    def __init__(self, random: np.random.Generator, num_seeds: int, num_images: int) -> None:
        self.seeds = random.multinomial(num_seeds, [1 / num_seeds] * num_seeds, _RESAMPLES) / num_seeds  # [B, S]
        # A Poisson number of each image is a multinomial draw but for their total.
        images = random.poisson(1.0, (_RESAMPLES, num_images)).astype(np.float32)  # [B, n]
        self.images = images / images.sum(axis=1, keepdims=True)

    def holds(self, differences: np.ndarray, truth: float) -> bool:
        """Whether the interval holds the truth."""
        means = ((self.images @ differences.T.astype(np.float32)) * self.seeds).sum(axis=1)
        low, high = np.quantile(means, [0.025, 0.975])
        return bool(low <= truth <= high)


def _t(degrees: float) -> float:
    return float(stats.t.ppf(0.975, degrees))


def _satterthwaite(found: MeanSquares, parts: Sequence[tuple[float, int]]) -> float:
    """Half width of a combination of mean squares; the order is that of seeds, images, rest."""
    total = sum(sign * square for square, sign in parts)
    if total <= 0:
        return 0.0
    seeds, images = found.num_seeds - 1, found.num_images - 1
    degrees = (seeds, images, seeds * images)
    uncertain = sum(square**2 / own for (square, _), own in zip(parts, degrees, strict=False))
    return _t(max(1.0, total**2 / uncertain)) * math.sqrt(total / (found.num_seeds * found.num_images))


def coverage(world: World, tables: int, random: np.random.Generator) -> dict[str, float]:
    """The share of tables in which each method's interval holds the truth."""
    truth = world.true_difference() if world.effect else 0.0
    bootstrap = Pigeonholes(random, world.num_seeds, world.num_images)
    held = dict.fromkeys([*METHODS, "two-way bootstrap"], 0)
    for _ in range(tables):
        baseline, arm = world.arms(random)
        differences = arm.astype(np.float64) - baseline
        found = MeanSquares.of(differences)
        for name, half in METHODS.items():
            held[name] += abs(found.mean - truth) <= half(found)
        held["two-way bootstrap"] += bootstrap.holds(differences, truth)
    return {name: number / tables for name, number in held.items()}


def coverage_of_own_splits(world: World, share: float, tables: int, random: np.random.Generator) -> dict[str, float]:
    """The same where each seed has a split of its own, a share of the world's images."""
    held = {"t over seeds": 0, "wider of t over seeds and ANOVA (chosen)": 0}
    for _ in range(tables):
        baseline, arm = world.arms(random)
        size = round(share * world.num_images)
        splits = [random.choice(world.num_images, size, replace=False) for _ in range(world.num_seeds)]
        found: CrossedEstimate = crossed_estimate(
            [arm[seed, split].astype(float) - baseline[seed, split] for seed, split in enumerate(splits)], splits
        )
        held["t over seeds"] += abs(found.mean) <= _t(world.num_seeds - 1) * math.sqrt(found.of_seeds)
        held["wider of t over seeds and ANOVA (chosen)"] += abs(found.mean) <= found.half_width(0.95)
    return {name: number / tables for name, number in held.items()}


def _numbers(text: str) -> list[int]:
    return [int(each) for each in text.split(",")]


@click.command(help=__doc__)
@click.option("--tables", default=2000, show_default=True, help="Tables simulated for each line.")
@click.option("--images", default="287,1000,5000,10000", show_default=True)
@click.option("--seeds", default="3,5", show_default=True)
@click.option("--effect", default=0.0, show_default=True, help="Of the arm, in logits.")
@click.option("--shares", default="0.1,0.2,0.5", show_default=True, help="Of splits of their own; empty for none.")
def main(tables: int, images: str, seeds: str, effect: float, shares: str) -> None:
    random = np.random.default_rng(0)
    worlds = [
        World(num_seeds, num_images, interaction, of_seed, effect)
        for num_seeds in _numbers(seeds)
        for num_images in _numbers(images)
        for of_seed in SEED_SPREADS
        for interaction in INTERACTIONS
    ]
    print(f"Coverage in percent, {tables:,} tables a line, effect {effect:g} logits.\n")
    print(_table((_described(world), coverage(world, tables, random)) for world in worlds))
    if not shares or effect:
        return
    print("\nSeeds with a validation split of their own, a share of 2,000 images:\n")
    own = [replace(World(number, 2000, interaction, 0.0)) for number in _numbers(seeds) for interaction in INTERACTIONS]
    lines = (
        ([*_described(world), f"{share:.0%}"], coverage_of_own_splits(world, share, tables, random))
        for share in map(float, shares.split(","))
        for world in own
    )
    print(_table(lines, "share"))


def _described(world: World) -> list[str]:
    return [str(world.num_seeds), f"{world.num_images:,}", f"{world.of_seed:g}", f"{world.interaction:g}"]


def _table(lines: Iterable[tuple[list[str], dict[str, float]]], *more: str) -> str:
    found = list(lines)
    headings = ["seeds", "images", "run", "interaction", *more, *found[0][1]]
    rows = [[*what, *(f"{100 * share:.1f}" for share in shares.values())] for what, shares in found]
    return markdown_table(headings, rows)


if __name__ == "__main__":
    main()
