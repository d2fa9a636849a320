"""Which tokens of a buffer attend to each other, and the attention itself: the one place that knows of sequences.

Everything else in a transformer works on single tokens, so it sees a buffer [n, D] and computes nothing for padding.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec

import torch
import torch.nn.functional as F
from torch import Tensor

from jepa_lab.models.aligned_keys import align_keys, aligned
from jepa_lab.models.compaction import Compaction


class Sequences(ABC):
    """The sequences that the tokens of a buffer make."""

    @abstractmethod
    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attention of every token to those of its sequence.

        Args:
            query, key, value: [n, H, head_dim].
        Returns:
            [n, H, head_dim]; finite numbers without meaning at rows that are in no sequence.
        """

    @abstractmethod
    def scores(self, aligned_keys: bool) -> int:
        """Pairs of a query and a key that attention computes, padding included; the host reads what it must.

        Args:
            aligned_keys: whether keys fill the vectors of a CPU, see `align_keys`.
        """


@dataclass(frozen=True)
class EqualLengths(Sequences):
    """Sequences that lie one after the other, those of the same length together; nothing is padded.

    Attributes:
        groups: number and length of the sequences of each group, in their order.
    """

    groups: tuple[tuple[int, int], ...]

    @classmethod
    def sorted(cls, lengths: Tensor) -> EqualLengths:
        """Of sequences whose lengths [S] ascend; the host reads them."""
        found, counts = lengths.unique_consecutive(return_counts=True)
        pairs = zip(counts.tolist(), found.tolist(), strict=True)
        return cls(tuple((count, length) for count, length in pairs if length > 0))

    def saved_flops(self, width: int) -> float:
        """Operations of the attention, gradients included, that padding all to the longest would add."""
        padded = sum(count for count, _ in self.groups) * max(length for _, length in self.groups) ** 2
        return 12 * width * (padded - sum(count * length**2 for count, length in self.groups))

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        sizes = [count * length for count, length in self.groups]
        if len(sizes) == 1:
            return _attend_padded(query, key, value, self.groups[0], None)
        parts = zip(query.split(sizes), key.split(sizes), value.split(sizes), self.groups, strict=True)
        return torch.cat([_attend_padded(q, k, v, shape, None) for q, k, v, shape in parts])

    def scores(self, aligned_keys: bool) -> int:
        return sum(_scores(shape, aligned_keys) for shape in self.groups)


@dataclass(frozen=True)
class PaddedSequences(Sequences):
    """Sequences that lie padded to one length in the buffer itself.

    Attributes:
        shape: S, L. attended: [S, 1, 1, L] bool, False at padding, which no token attends to; None without.
    """

    shape: tuple[int, int]
    attended: Tensor | None

    @classmethod
    def of(cls, valid: Tensor | None, shape: tuple[int, int]) -> PaddedSequences:
        """With padding where `valid` [S, L] is False."""
        return cls(shape, None if valid is None else valid[:, None, None, :])

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return _attend_padded(query, key, value, self.shape, self.attended)

    def scores(self, aligned_keys: bool) -> int:
        return _scores(self.shape, aligned_keys)


@dataclass(frozen=True)
class PaddedForAttention(Sequences):
    """Sequences without padding in the buffer, which are padded for the attention alone."""

    compaction: Compaction

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        heads, shape = query.shape[1], self.compaction.slots.shape
        valid = self.compaction.valid
        together = self.compaction.pad().of(torch.cat((query, key, value), dim=1))  # [S * L, 3 H, head_dim]
        query, key, value = together.split(heads, dim=1)
        attended = None if valid is None else valid[:, None, None, :]
        out = _attend_padded(query, key, value, (shape[0], shape[1]), attended)
        return self.compaction.drop().of(out)

    def scores(self, aligned_keys: bool) -> int:
        return _scores(tuple(self.compaction.slots.shape), aligned_keys)


def has_kernel_for_variable_lengths(device: torch.device, precision: str, head_dims: Iterable[int]) -> bool:
    """Whether `VariableLengths` can be computed.

    Args:
        precision: of the products: fp32, bf16 or fp16.
    """
    if device.type != "cuda" or precision == "fp32" or not kernel_fits(head_dims):
        return False
    flash = torch.backends.cuda.is_flash_attention_available()
    return flash and torch.cuda.get_device_capability(device) >= (8, 0)  # the tensor cores that it is written for


def kernel_fits(head_dims: Iterable[int]) -> bool:
    """Whether this PyTorch has an attention for variable lengths (2.10 and later), for heads of these widths."""
    return find_spec("torch.nn.attention.varlen") is not None and max(head_dims) <= _WIDEST_HEAD


_KERNEL_WIDTHS = 8
"""The kernel takes heads whose width is a multiple of this."""
_WIDEST_HEAD = 256


@dataclass(frozen=True)
class VariableLengths(Sequences):
    """Sequences that lie one after the other; an attention kernel for variable lengths knows where they begin.

    Attributes:
        starts: [S + 1] int32, where each begins, and the end of the last.
        longest: at least the length of each.
    """

    starts: Tensor
    longest: int

    @classmethod
    def filling(cls, lengths: Tensor, size: int, longest: int) -> VariableLengths:
        """Sequences of the lengths [S], and more of at most `longest` tokens that fill the buffer up.

        The kernel writes nothing behind the last sequence, and what it leaves there may not even be finite.
        """
        rest = size - lengths.sum()
        at = torch.arange(0, size, longest, device=lengths.device)
        filling = (rest - at).clamp(min=0, max=longest)
        starts = torch.cat((lengths, filling)).cumsum(0)
        return cls(F.pad(starts, (1, 0)).to(torch.int32), longest)

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        from torch.nn.attention.varlen import varlen_attn

        starts, longest, width = self.starts, self.longest, query.shape[-1]
        more = -width % _KERNEL_WIDTHS
        if more:  # zeros change no score but the scale that the kernel divides by
            query = query * ((width + more) / width) ** 0.5
            query, key, value = (F.pad(each, (0, more)) for each in (query, key, value))
        out = varlen_attn(query, key, value, starts, starts, longest, longest)
        assert isinstance(out, Tensor), "nothing else was asked for"
        return out[..., :width]

    def scores(self, aligned_keys: bool) -> int:
        return int(self.starts.diff().long().square().sum())


def _scores(shape: tuple[int, ...], aligned_keys: bool) -> int:
    """Of S sequences of L tokens."""
    number, length = shape
    return number * length * (aligned(length) if aligned_keys else length)


def _attend_padded(
    query: Tensor, key: Tensor, value: Tensor, shape: tuple[int, int], attended: Tensor | None
) -> Tensor:
    """Attention in S sequences of L tokens each, [S * L, H, head_dim], to the keys that are `attended` [S, 1, 1, L]."""
    query, key, value = (each.unflatten(0, shape) for each in (query, key, value))  # [S, L, H, head_dim]
    key, value, attended = align_keys(key, value, attended)
    query, key, value = query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)
    out = F.scaled_dot_product_attention(query, key, value, attn_mask=attended)  # [S, H, L, head_dim]
    return out.transpose(1, 2).flatten(0, 1)
