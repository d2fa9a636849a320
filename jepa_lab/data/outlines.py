"""Outlines of the shapes that `synthetic` draws."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

Outline = Callable[[Tensor, Tensor], Tensor]
"""The signed distance (about; negative inside) from the outline of a shape of radius 1 at (x, y), y pointing down."""

_INNER_RADIUS = 0.45  # of a star's notches


def _star(x: Tensor, y: Tensor) -> Tensor:
    """Five points, one of them up: a tenth of the star, the other nine folded onto it."""
    tenth = math.pi / 5
    angle = torch.atan2(x, -y).abs()  # from the topmost point
    folded = (angle - (angle / (2 * tenth)).round() * 2 * tenth).abs()  # [0, tenth]: from a point to a notch
    radius = torch.hypot(x, y)
    along, across = radius * folded.cos(), radius * folded.sin()
    # The edge runs from the point (1, 0) to the notch; its normal looks outwards.
    notch_along, notch_across = _INNER_RADIUS * math.cos(tenth), _INNER_RADIUS * math.sin(tenth)
    length = math.hypot(1 - notch_along, notch_across)
    return ((along - 1) * notch_across + across * (1 - notch_along)) / length


OUTLINES: dict[str, Outline] = {
    "disc": lambda x, y: torch.hypot(x, y) - 1,
    "square": lambda x, y: torch.maximum(x.abs(), y.abs()) - 0.85,
    "triangle": lambda x, y: torch.maximum(0.866 * x.abs() - 0.5 * y, y) - 0.5,
    "cross": lambda x, y: torch.minimum(
        torch.maximum(x.abs() - 1, y.abs() - 0.3), torch.maximum(x.abs() - 0.3, y.abs() - 1)
    ),
    "ring": lambda x, y: (torch.hypot(x, y) - 0.75).abs() - 0.25,
    "diamond": lambda x, y: (x.abs() + y.abs() - 1) * 0.707,
    "star": _star,
    "half_disc": lambda x, y: torch.maximum(torch.hypot(x, y - 0.4) - 0.9, y - 0.4),
}
"""Outlines by the name of the shape, in the order of the classes."""
