"""The nearest neighbours by cosine similarity, in blocks of queries and of bank, so that memory is bounded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from jepa_lab.probes.features import Labelled
from jepa_lab.randomness import build_generator

_VALUES_AT_ONCE = 1 << 23
"""Features of a block in double precision: 64 MiB."""
_ROWS_AT_ONCE = 2048
"""Images of a block: the similarities of two blocks are 32 MiB, and a handful of arrays are as large."""
_TIE = 1e-13
"""Similarities that differ by less are the same: it is above the rounding of a product of unit vectors, and below
what the similarities of different images differ by."""
_CONSTANT = 1e-10
"""Standard deviation, as a share of the mean, of a feature that is the same for all images but for rounding."""


@dataclass(frozen=True)
class Neighbours:
    """The k nearest images of some queries, the nearest first.

    Attributes:
        similarities: [q, k] cosines in double precision. labels: [q, k] int64. Both are on the device.
    """

    similarities: Tensor
    labels: Tensor


class NeighbourSearch:
    """Finds the nearest images of a bank.

    Args:
        bank: parts that are searched together, their features [n, D'] in memory or mapped from a file.
        standardize: divide by the bank's standard deviations after taking its means away, features and queries alike.
        device: that has double precision.
    """

    def __init__(self, bank: Sequence[Labelled], standardize: bool, device: torch.device) -> None:
        self.bank, self.device = bank, device
        self.num_images = sum(len(labels) for _, labels in bank)
        self.block_rows = max(1, min(_ROWS_AT_ONCE, _VALUES_AT_ONCE // bank[0][0].shape[1]))
        self.mean: Tensor | None = None
        self.scale: Tensor | None = None
        if standardize:
            self.mean, self.scale = self._statistics()
        generator = build_generator(0, "ties of neighbours")  # the same for every run: a tie is no choice of the run
        self.places = torch.rand(self.num_images, dtype=torch.float64, generator=generator)  # [n]
        self.generator = generator

    def of(self, queries: Tensor, k: int) -> Iterator[Neighbours]:
        """The k nearest images of one block of queries after another.

        Images at the same distance come in an order of their own for each query: where more are at the same distance
        than there is room for, neither their order in the data set nor their labels decide.

        Args:
            queries: [q, D'].
            k: at most the number of images.
        """
        for features in queries.split(self.block_rows):
            vectors = self._unit_vectors(features)
            turns = torch.rand(len(features), 1, dtype=torch.float64, generator=self.generator)  # [q, 1]
            yield self._nearest(vectors, turns.to(self.device), k)

    def _nearest(self, queries: Tensor, turns: Tensor, k: int) -> Neighbours:
        """Args:
        queries: [q, D'] unit vectors. turns: [q, 1] in [0, 1), which turn the places of the images for each query.
        """
        nearness = torch.empty(len(queries), 0, dtype=torch.float64, device=self.device)
        similarities, labels = torch.empty_like(nearness), torch.empty_like(nearness, dtype=torch.int64)
        for vectors, own, places in self._blocks():
            # On unit vectors Euclidean distance orders as cosine does, and rounding of their lengths does not disturb
            # it: |q - v|^2 = |q|^2 - 2 (q v - |v|^2 / 2), of which |q|^2 is the same for all.
            cosines = queries @ vectors.T  # [q, n]
            near = cosines - vectors.square().sum(dim=1) / 2 + _TIE * (turns + places).frac()
            found = torch.cat((nearness, near), dim=1).topk(min(k, nearness.shape[1] + near.shape[1]), dim=1)
            nearness, chosen = found.values, found.indices
            similarities = torch.cat((similarities, cosines), dim=1).gather(1, chosen)
            labels = torch.cat((labels, own.expand(len(queries), -1)), dim=1).gather(1, chosen)
        return Neighbours(similarities, labels)

    def _blocks(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Unit vectors [n, D'], labels [n] and places [n] of one block of the bank after another."""
        start = 0
        for features, labels in self.bank:
            for part, own in zip(features.split(self.block_rows), labels.split(self.block_rows), strict=True):
                places = self.places[start : start + len(own)]
                start += len(own)
                yield self._unit_vectors(part), own.to(self.device), places.to(self.device)

    def _unit_vectors(self, features: Tensor) -> Tensor:
        """Features scaled to length 1, [n, D'] in double precision on the device; zeros stay zeros."""
        vectors = features.to(self.device).double()
        if self.mean is not None and self.scale is not None:
            vectors = (vectors - self.mean) * self.scale
        lengths = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
        return vectors / torch.where(lengths > 0, lengths, 1)

    def _statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and inverse standard deviation of each feature over the bank, [D'] both; 0 for one that is constant."""
        mean = sum((part.sum(dim=0) for part in self._parts()), torch.zeros((), device=self.device).double())
        mean = mean / self.num_images
        squares = sum(((part - mean).square().sum(dim=0) for part in self._parts()), torch.zeros_like(mean))
        std = (squares / self.num_images).sqrt()
        return mean, torch.where(std > _CONSTANT * mean.abs(), 1 / std.clamp(min=torch.finfo(std.dtype).tiny), 0.0)

    def _parts(self) -> Iterator[Tensor]:
        """Features of one block of the bank after another, [n, D'] in double precision on the device."""
        for features, _ in self.bank:
            for part in features.split(self.block_rows):
                yield part.to(self.device).double()
