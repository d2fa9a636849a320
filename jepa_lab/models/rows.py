"""Taking rows of buffers of tokens, with a gradient that is a gather too.

PyTorch's gradient of indexing adds up row after row, because a row may be taken any number of times. Here it is known
beforehand who takes which row, so that the gradient can look its parts up: it is deterministic, needs no atomic
addition on a GPU, and a row that nobody takes costs nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Takers:
    """Who takes the rows of a buffer of n.

    Attributes:
        rows: [n, C] int64, the rows of the result that take each row; numbers without meaning where not `taken`.
        taken: [n, C] bool, or None where every row is taken C times.
    """

    rows: Tensor
    taken: Tensor | None

    def collect(self, gradient: Tensor) -> Tensor:
        """Gradient [m, ...] of the result -> [n, ...] of the buffer."""
        copies = self.rows.shape[1]
        parts = _take(gradient, self.rows.flatten())  # [n * C, ...]
        if self.taken is not None:
            parts = parts.masked_fill(~self.taken.reshape(-1, *[1] * (parts.dim() - 1)), 0.0)
        return parts if copies == 1 else parts.unflatten(0, (-1, copies)).sum(dim=1)


@dataclass(frozen=True)
class Rows:
    """Which rows of a buffer are taken, and by whom.

    Attributes:
        index: [m] int64, the row that each row of the result is.
        takers: None where nobody wants a gradient.
    """

    index: Tensor
    takers: Takers | None = None

    def of(self, tokens: Tensor) -> Tensor:
        """The rows of tokens [n, ...] -> [m, ...]."""
        if self.takers is None:
            assert not (tokens.requires_grad and torch.is_grad_enabled()), "a gradient needs to know who took a row"
            return _take(tokens, self.index)
        result: Tensor = _Take.apply(tokens, self.index, self.takers.rows, self.takers.taken)
        return result


@dataclass(frozen=True)
class RowsOfTwo:
    """Which rows of two buffers, one behind the other, are taken, and by whom.

    Attributes:
        index: [m] int64, the row that each row of the result is; those of the second follow those of the first.
    """

    index: Tensor
    first: Takers
    second: Takers

    def of(self, first: Tensor, second: Tensor) -> Tensor:
        """The rows of [n1, ...] and [n2, ...] -> [m, ...]."""
        takers = (self.first.rows, self.first.taken, self.second.rows, self.second.taken)
        result: Tensor = _TakeOfTwo.apply(first, second, self.index, *takers)
        return result


class _Take(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tokens: Tensor, index: Tensor, takers: Tensor, taken: Tensor | None) -> Tensor:
        ctx.save_for_backward(takers, taken)
        return _take(tokens, index)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (gradient,) = gradients
        return Takers(*ctx.saved_tensors).collect(gradient), None, None, None


class _TakeOfTwo(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, first: Tensor, second: Tensor, index: Tensor, *takers: Tensor | None) -> Tensor:
        ctx.save_for_backward(*takers)
        return torch.cat((first, second)).index_select(0, index)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        first, taken_first, second, taken_second = ctx.saved_tensors
        parts = (Takers(first, taken_first).collect(gradient), Takers(second, taken_second).collect(gradient))
        return (*parts, None, None, None, None, None)


def _take(tokens: Tensor, index: Tensor) -> Tensor:
    """Rows at an index; zeros where there are no rows at all, as in a batch without a target."""
    if len(tokens) == 0:
        return tokens.new_zeros(len(index), *tokens.shape[1:])
    return tokens.index_select(0, index)
