"""From entries [S, L] of which some are padding to a buffer of rows without padding, and back."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from jepa_lab.models.rows import Rows, Takers


@dataclass(frozen=True)
class Compaction:
    """Which row of a buffer holds each entry, and which entry each row holds.

    Attributes:
        entries: [n] int64, the entry s * L + l that each row holds.
        slots: [S, L] int64, the row of each entry; a row without meaning where the entry is padding.
        valid: [S, L] bool, or None where no entry is padding.
        real: [n] bool, False at rows that hold nothing and only fill the buffer up; None where there are none.
        fits: scalar bool, whether all entries have found room; None where they have by construction.
    """

    entries: Tensor
    slots: Tensor
    valid: Tensor | None
    real: Tensor | None
    fits: Tensor | None = None

    @classmethod
    def padded(cls, valid: Tensor) -> Compaction:
        """Every entry has a row, padding too."""
        entries = torch.arange(valid.numel(), device=valid.device)
        return cls(entries, entries.view(valid.shape), None, None)

    @classmethod
    def exact(cls, valid: Tensor, order: Tensor | None = None) -> Compaction:
        """No row is padding; the host waits for their number.

        Args:
            valid: [S, L] bool. order: [S] of the sequences in the buffer; by default as they come.
        """
        num, length = valid.shape
        grid = torch.arange(num * length, device=valid.device).view(num, length)
        entries = grid[valid] if order is None else grid[order][valid[order]]
        slots = torch.zeros(num * length, dtype=torch.int64, device=valid.device)
        slots[entries] = torch.arange(len(entries), device=valid.device)
        return cls(entries, slots.view(num, length), valid, None)

    @classmethod
    def of_size(cls, valid: Tensor, size: int) -> Compaction:
        """A buffer of a fixed size, which must hold all: `fits` says whether it did. The host does not wait."""
        flat = valid.flatten()
        running = flat.cumsum(0)
        rows = torch.where(flat, running - 1, size).clamp(max=size)  # what is padding falls into a row that is cut off
        entries = torch.zeros(size + 1, dtype=torch.int64, device=valid.device)
        entries.scatter_(0, rows, torch.arange(len(flat), device=valid.device))
        real = torch.arange(size, device=valid.device) < running[-1]
        slots = rows.masked_fill(~flat, 0).clamp(max=size - 1).view(valid.shape)
        return cls(entries[:size].masked_fill(~real, 0), slots, valid, real, running[-1] <= size)

    def __len__(self) -> int:
        return len(self.entries)

    def of_entries(self, values: Tensor) -> Tensor:
        """What belongs to each row, of values [S, L, ...] (no gradient)."""
        return values.flatten(0, 1).index_select(0, self.entries)

    def pad(self) -> Rows:
        """Rows [n, ...] -> entries [S * L, ...]; padding holds numbers without meaning, whose gradient is lost."""
        taken = None if self.real is None else self.real[:, None]
        return Rows(self.slots.flatten(), Takers(self.entries[:, None], taken))

    def drop(self) -> Rows:
        """Entries [S * L, ...] -> rows [n, ...]."""
        taken = None if self.valid is None else self.valid.reshape(-1, 1)
        return Rows(self.entries, Takers(self.slots.reshape(-1, 1), taken))
