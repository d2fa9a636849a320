"""Simulated runs whose truth is known: which images each arm gets right with each seed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from jepa_lab.runs.predictions import ScoredImages, SplitImages

IMAGES = SplitImages("a data set", "its pixels", 32)


@dataclass(frozen=True)
class World:
    """A population of images and seeds; numbers in logits of being right.

    Attributes:
        interaction: standard deviation of what an arm does to single images.
        of_seed: standard deviation of what a run does to all images.
        effect: of the second arm; a true null is 0.
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
            logits = own + self.of_seed * random.standard_normal((self.num_seeds, 1))
            found[arm] = random.random(logits.shape) * (1 + np.exp(-logits)) < 1
        return found

    def true_difference(self) -> float:
        """Of the accuracies in the population, second arm - first, by simulating many images."""
        many = World(1, 2_000_000, self.interaction, self.of_seed, self.effect, self.mean, self.of_image)
        random = np.random.default_rng(0)
        image = many.mean + many.of_image * random.standard_normal(many.num_images)
        noise = np.hypot(many.interaction, many.of_seed) * random.standard_normal(many.num_images)
        accuracy = [(1 / (1 + np.exp(-(image + noise + effect)))).mean() for effect in (0.0, self.effect)]
        return float(accuracy[1] - accuracy[0])


def scored(right: np.ndarray, positions: np.ndarray | None = None) -> ScoredImages:
    """Images [n] of one run, of one class."""
    positions = np.arange(len(right)) if positions is None else positions
    return ScoredImages(IMAGES, positions, np.zeros(len(right), np.int64), right.astype(float))
