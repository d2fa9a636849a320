"""What every downsampling keeps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch

from jepa_lab.downsampling.base import Downsampling
from jepa_lab.registry import ComponentParams, Entry
from jepa_lab.testing.randomness import seeded
from jepa_lab.testing.steps import InTheStep


class DownsamplingContract(InTheStep):
    """Tests of a `Downsampling`."""

    overrides = ("hierarchy={num_levels: 2, downsampling: {}}",)
    fitting = 48
    breaking: ClassVar[Sequence[Any]] = (1,)

    def test_hidden_cells_do_not_matter(self, entry: Entry[Downsampling], params: ComponentParams) -> None:
        downsampling, generator = entry.component(params, 12), seeded()
        for parameter in downsampling.parameters():
            parameter.data.normal_(generator=generator)
        children = torch.randn(2, 5, 4, 12, generator=generator)
        seen = torch.rand(2, 5, 4, generator=generator) < 0.5
        seen[0, 0] = False
        found = downsampling(children, seen)
        assert found.shape == (2, 5, 12)
        assert torch.isfinite(found).all()
        other = torch.where(seen.unsqueeze(-1), children, torch.full_like(children, 7.0))
        is_seen = seen.any(dim=2)
        assert torch.equal(downsampling(other, seen)[is_seen], found[is_seen])
