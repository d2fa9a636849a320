"""Mean intersection over union of predicted label maps, counted batch by batch."""

from __future__ import annotations

import torch
from torch import Tensor

from jepa_lab.data.label_maps import IGNORED


class PixelCounts:
    """How many pixels of each class (row) were predicted as each class (column); ignored pixels are not counted.

    Attributes:
        counts: [num_classes, num_classes] int64 on the device.
    """

    def __init__(self, num_classes: int, device: torch.device) -> None:
        self.counts = torch.zeros(num_classes, num_classes, dtype=torch.int64, device=device)

    def add(self, truth: Tensor, predicted: Tensor) -> None:
        """Count more pixels; both of the same shape, any integers, on the device."""
        num_classes = len(self.counts)
        counted = truth != IGNORED
        pairs = truth[counted].long() * num_classes + predicted[counted].long()
        self.counts += torch.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)

    def by_class(self) -> list[float | None]:
        """Intersection over union of each class; None for one that is neither there nor predicted."""
        counts = self.counts.cpu().double()
        intersection = counts.diagonal()
        union = counts.sum(dim=0) + counts.sum(dim=1) - intersection
        return [(shared / both).item() if both > 0 else None for shared, both in zip(intersection, union, strict=True)]

    def mean(self) -> float:
        """The mean of `by_class` over the classes that have one; 0 where no pixel was counted."""
        found = [value for value in self.by_class() if value is not None]
        return sum(found) / len(found) if found else 0.0
